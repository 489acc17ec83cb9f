"""The one exception that is meant for the user."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    Entry scripts print it without a traceback and exit with code 1.
    """
