"""The bounds of what a client may send, each with its reason."""

from __future__ import annotations

from typing import Final

MIB: Final = 1 << 20

# --- one request ----------------------------------------------------------------------------------------------------
MAX_MESSAGE: Final = 36 * MIB
"""Bytes of one body or message: 32 MiB of picture, which `preprocess` takes at most, and room for what is around it."""
MAX_JSON_HEADER: Final = 64 << 10
"""Bytes of the JSON part before binary tensors: a full request that names every output has 2 KiB."""
MAX_JSON_BODY: Final = MIB
"""Bytes of a body that is JSON alone. What is larger holds a picture as text or as numbers, and is told so unread."""
MAX_ID: Final = 128
"""Characters of a request id; a UUID has 36. Triton writes it into its answers and its log."""
MAX_TENSORS: Final = 16
"""Inputs of one request; the ensembles have one or two. More are refused before any is looked at."""
MAX_OUTPUTS: Final = 64
"""Requested outputs of one request; the ensembles have at most sixteen."""
MAX_PARAMETERS: Final = 64
"""Parameters of one request, tensor or output; the ensembles know at most eleven."""
MAX_CONSENT: Final = 500
"""Characters of a consent statement of `fuse`: a few sentences. It goes into the result and into the log."""
MAX_PHOTOGRAPHS: Final = 8
"""Photographs of one person in one request: as many rows as `person`'s steps take at once."""
MAX_RANK: Final = 8
"""Dimensions of one shape; the ensembles' inputs have two."""
MAX_FIELDS: Final = 4096
"""Protobuf fields of one message, with those inside of others: 64 parameters of the request and of each of 80 tensors
and outputs are never meant. Each takes a microsecond to count and some 100 bytes once it is parsed."""
MAX_FIELD: Final = 64 << 10
"""Bytes of one protobuf field that is no tensor; the same as of the JSON header, for the same contents."""

# --- headers --------------------------------------------------------------------------------------------------------
MAX_HEADERS: Final = 64
"""HTTP header fields of one request; clients and proxies send about twenty."""
MAX_HEADER_FIELD: Final = 8190
"""Bytes of one HTTP header field and of the request line: what Apache and nginx take."""
MAX_METADATA: Final = 16 << 10
"""Bytes of a gRPC call's metadata; a bearer token has 1 to 4 KiB. gRPC's default is 8 KiB (soft) and 16 KiB (hard)."""

# --- how much at the same time --------------------------------------------------------------------------------------
MAX_IN_FLIGHT: Final = 128
"""Inference requests that are worked on at the same time. Triton holds 64 behind the decoder and about as many in its
other steps; further ones could only wait here, so they are refused at once."""
MAX_HELD: Final = 1024 * MIB
"""Bytes of all requests that are read or inside: 28 of the largest, or 128 of 8 MiB. With the answers (128 of at most
about 8 MiB, and one copy) the process stays below 4 GiB."""
MAX_LARGE: Final = 1
"""Requests for a texture of more than `LARGE_TEXTURE` texels a side, or for small faces (`min_face`), that are worked
on together, one picture each: one takes up to a second, and 200 MB of the memory that processes share
(`deploy/shm.py`). Others wait."""
LARGE_TEXTURE: Final = 1024
LARGE_TIME: Final = 60.0
"""Seconds that a request waits for its turn among those."""
MAX_READING: Final = 32
"""gRPC messages that are read at the same time: gRPC gives a message when it is whole, so these may have 36 MiB each on
top of MAX_HELD. One of 100 KB is read in 1 ms. HTTP's bytes are counted as they come and need no such bound."""
MAX_CALLS: Final = 512
"""gRPC calls at the same time, health checks too; beyond MAX_IN_FLIGHT they get a sentence, beyond this a status."""
MAX_STREAMS: Final = 128
"""Calls at the same time on one gRPC connection: no connection needs more than MAX_IN_FLIGHT."""
MAX_CONNECTIONS: Final = 512
"""Open connections of each protocol: 4 times MAX_IN_FLIGHT, since most are idle. A socket costs up to 200 KiB here."""

# --- time, in seconds -----------------------------------------------------------------------------------------------
HEADER_TIME: Final = 10.0
"""Until the header of an HTTP request is whole, and until a gRPC connection is set up: nginx.conf says the same."""
BODY_TIME: Final = 60.0
"""Until a body is whole: 36 MiB over 5 Mbit/s."""
HURRIED_BODY_TIME: Final = 5.0
"""The same while others wait for the place, and once the gateway was told to stop: 3 MB over 5 Mbit/s."""
ROOM_TIME: Final = 5.0
"""How long a request waits for room in MAX_HELD before it is refused."""
ANSWER_TIME: Final = 60.0
"""Until a client has read its answer; an unread one holds a place."""
WORK_TIME: Final = 300.0
"""Until Triton has answered, where the client gave no earlier deadline."""
LINGER_TIME: Final = 5.0
"""A refused HTTP body is read and thrown away so long, so that its sender sees the answer and not a broken pipe."""
IDLE_TIME: Final = 75.0
"""An HTTP connection without a request is closed after it, as by nginx."""
IDLE_TIME_GRPC: Final = 600.0
"""A gRPC connection without a call is closed after it; clients connect again by themselves."""
PING_INTERVAL: Final = 20.0
"""A gRPC connection that pings more often without a call is closed (after two such pings)."""
POLL: Final = 0.5
"""Between two looks at Triton's readiness."""
