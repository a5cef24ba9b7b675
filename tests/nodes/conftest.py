"""What several tests of nodes need and takes long to make."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small random networks under the published files' names."""
    from control_composer.tests.preprocessors.annotator_weights import write_all

    folder = tmp_path_factory.mktemp("annotators")
    write_all(folder)
    return folder
