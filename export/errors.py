"""The one exception `export/` raises for something a user can mend; the command line turns it into exit code 2."""


class ExportError(Exception):
    """One sentence that says what is wrong and what to do."""
