"""The one exception for what a person can mend: `zoo.cli` prints its sentence and exits with code 2."""


class ZooError(Exception):
    """A mistake or an obstacle, told in at most three lines that say what to do."""
