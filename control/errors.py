"""What can be wrong with a control, its hint or its settings."""


class ControlError(ValueError):
    """The graph asks for a control that cannot work; the message says what to change."""
