"""Photographs to textured 3D faces, from a Face3D server.

::

    from face3d_client import Face3DClient

    with Face3DClient("localhost:8001") as client:
        face = client.reconstruct("portrait.jpg")
        face.save("face.glb")

`Face3DClient` blocks, `AsyncFace3DClient` awaits; both speak gRPC and HTTP and give the same `Reconstruction`.
Everything raised on purpose is one of these:

::

    Face3DError
    ├── RequestError            this request cannot succeed however often it is sent
    │   ├── BadImage            not a picture, truncated, empty or of an unsupported format
    │   ├── ImageTooLarge       more bytes or pixels than the server takes
    │   ├── NoFace              no face, or none with a high enough score
    │   ├── BadFace             the five points found cannot be a face
    │   ├── NoSuchFace          the face asked for (index or box) is not in the picture
    │   ├── BadOption           an option's value makes no sense
    │   ├── PoorQuality         a photograph is too poor to enrol a person by
    │   ├── DifferentPeople     photographs of one person show different ones
    │   ├── ConsentRequired     a picture is to be fused, and no statement says who agreed
    │   ├── NotServed           what is asked for is off on this server
    │   └── BadRequest          the request is malformed, or asks for what is not served
    ├── ServiceError            the picture may be fine; the service is not
    │   ├── Overloaded          the queue is full                                   (retried)
    │   ├── Timeout             the deadline passed
    │   ├── ServerUnavailable   server, model or one of its processes is down       (retried unless INTERNAL)
    │   ├── AccessDenied        the token, key or certificate was refused
    │   ├── BadResponse         what came back is not an answer of this service
    │   └── FaceModelMismatch   regressor and face model on the server do not belong together
    ├── GalleryMismatch         vectors of two embedders met
    ├── GalleryError            a gallery that cannot be opened, or a store that does not answer
    ├── BadEndpoint             an address, token or header that cannot be used     (also a ValueError)
    └── NotRequested            a field of a result was read that had not been asked for

Files that cannot be read raise OSError as everywhere in Python, arguments that contradict each other ValueError or
TypeError.
"""

from face3d_client._async_client import AsyncFace3DClient
from face3d_client._camera import Camera
from face3d_client._client import Face3DClient
from face3d_client._coefficients import Coefficients
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Embedding, Quality
from face3d_client._errors import (
    AccessDenied,
    BadEndpoint,
    BadFace,
    BadImage,
    BadOption,
    BadRequest,
    BadResponse,
    ConsentRequired,
    DifferentPeople,
    Face3DError,
    FaceModelMismatch,
    GalleryError,
    GalleryMismatch,
    ImageTooLarge,
    NoFace,
    NoSuchFace,
    NotRequested,
    NotServed,
    Overloaded,
    PoorQuality,
    RequestError,
    ServerUnavailable,
    ServiceError,
    Timeout,
)
from face3d_client._expected import ExpectedErrors
from face3d_client._fuse_clip import ClipResult
from face3d_client._fusion import Fusion
from face3d_client._images import ImageSource
from face3d_client._outcome import Outcome
from face3d_client._person import Person
from face3d_client._protocol.fuse import FuseOptions
from face3d_client._protocol.options import (
    DEFAULT_OUTPUTS,
    Expression,
    Glasses,
    Hair,
    MeshKind,
    Options,
    Output,
    PersonOptions,
    Pose,
    Rig,
    TextureFormat,
    TextureLight,
)
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._provenance import Manifest, read_manifest
from face3d_client._results import Reconstruction
from face3d_client._tracking import Clip, TrackedFrame
from face3d_client._transports.endpoint import TLS, Protocol
from face3d_client._transports.retry import Retry
from face3d_client._version import __version__

__all__ = [
    "DEFAULT_OUTPUTS",
    "TLS",
    "AccessDenied",
    "AsyncFace3DClient",
    "BadEndpoint",
    "BadFace",
    "BadImage",
    "BadOption",
    "BadRequest",
    "BadResponse",
    "Camera",
    "Clip",
    "ClipResult",
    "Coefficients",
    "ConsentRequired",
    "DetectedFace",
    "DifferentPeople",
    "Embedding",
    "ExpectedErrors",
    "Expression",
    "Face3DClient",
    "Face3DError",
    "FaceModelMismatch",
    "FuseOptions",
    "Fusion",
    "GalleryError",
    "GalleryMismatch",
    "Glasses",
    "Hair",
    "ImageSource",
    "ImageTooLarge",
    "Manifest",
    "MeshKind",
    "ModelStatus",
    "NoFace",
    "NoSuchFace",
    "NotRequested",
    "NotServed",
    "Options",
    "Outcome",
    "Output",
    "Overloaded",
    "Person",
    "PersonOptions",
    "PoorQuality",
    "Pose",
    "Protocol",
    "Quality",
    "Reconstruction",
    "RequestError",
    "Retry",
    "Rig",
    "ServerInfo",
    "ServerUnavailable",
    "ServiceError",
    "TextureFormat",
    "TextureLight",
    "Timeout",
    "TrackedFrame",
    "__version__",
    "read_manifest",
]
