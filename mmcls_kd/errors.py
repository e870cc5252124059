"""Errors that end a training in good order: one line says what happened and how to go on."""


class TrainingError(RuntimeError):
    """A training cannot go on; the message names the cause and what to do. The last checkpoint stays as it is."""


class ChoiceError(ValueError):
    """A setting is none of those that there are; the message names it and them."""


class UnreadableImageError(TrainingError):
    """An image of the training data cannot be read; the message names the file."""


class NonFiniteLossError(TrainingError):
    """A loss became NaN or infinite; the message names the term.

    Args:
        terms: Names of the terms that are not finite in this process; empty if they are so in another process alone.
    """

    def __init__(self, terms: list[str]) -> None:
        super().__init__(', '.join(terms) or 'a loss in another process')
        self.terms = terms
