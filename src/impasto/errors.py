"""What a user can do wrong, told in one line."""


class ImpastoError(Exception):
    """A mistake that the user can mend: its text is one line that says what is wrong and what to do."""


class ImageError(ImpastoError):
    """A picture that can't be read or written."""


class OptionError(ImpastoError):
    """An option that does not exist or has a value out of range."""


class WeightsError(ImpastoError):
    """A weights file or style card that is missing, damaged or made for something else."""
