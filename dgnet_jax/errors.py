"""The exceptions that end a run: wrong input from a user, and a loss that is not a number."""


class InputError(ValueError):
    """A file, flag or config field is wrong.

    The message names it, says what was found and what to do; `launch.py` prints it without a
    traceback.
    """


class DivergedError(FloatingPointError):
    """A loss or a parameter became NaN or infinite.

    Attributes:
        step: the training step where it was found.
        loss_name: the first loss that is not finite, or "parameters".
        checkpoint: the step of the last good checkpoint, or None.
    """

    def __init__(self, message: str, step: int, loss_name: str, checkpoint: int | None):
        super().__init__(message)
        self.step = step
        self.loss_name = loss_name
        self.checkpoint = checkpoint
