"""The networks of preprocessors: plain torch modules that take the published files as they are."""
