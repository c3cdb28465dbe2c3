"""What can go wrong before and while the embedded server runs. Every message is one sentence, and says what to do.

ServerError
|- PlatformNotSupported   not x86-64 Linux, or a Python without a shared library
|- RuntimeMissing         the wheel with the tritonserver binary is not installed
|- RepositoryInvalid      no such repository, or a config.pbtxt that cannot be read
|- ExportMissing          a file that `make export` writes is not there
|- PortTaken              another program listens on the port
|- SharedMemoryTooSmall   /dev/shm has no room for the models' processes
|- ModelLoadFailed        Triton refused a model; the reason is Triton's
|- StartTimeout           the models were not ready in time
|- StartHung              a start that does nothing any more; it is tried again
|- ServerDied             the process ended by itself
   |- ServerCrashed       by a signal that a fault of its own raised
"""


class ServerError(Exception):
    """Base of all of them; ``str()`` is a sentence for the user."""


class PlatformNotSupported(ServerError):
    """This machine cannot run the binary."""


class RuntimeMissing(ServerError):
    """The tritonserver binary is not installed."""


class RepositoryInvalid(ServerError):
    """The model repository cannot be served as it is."""


class ExportMissing(ServerError):
    """A build product is missing in the model repository."""


class PortTaken(ServerError):
    """A port that was asked for is in use."""


class SharedMemoryTooSmall(ServerError):
    """Too little room in /dev/shm."""


class ModelLoadFailed(ServerError):
    """Triton could not load a model."""


class StartTimeout(ServerError):
    """The models were not ready within the time allowed."""


class StartHung(ServerError):
    """A start stands still: no process of it works any more."""


class ServerDied(ServerError):
    """The server's process ended without being asked to."""


class ServerCrashed(ServerDied):
    """The server's process was ended by a fault of its own."""
