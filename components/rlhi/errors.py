"""The one exception that a user is meant to read."""


class InputError(Exception):
    """Something the user gave cannot be used. The message names the value and the way out.

    The command line prints it as one line and exits with 2; anything else that is raised is a defect of ours and keeps
    its traceback.
    """
