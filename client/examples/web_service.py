"""A web service in front of the server: POST a picture, get a GLB.

    pip install fastapi uvicorn
    uvicorn web_service:app --port 8080
    curl --data-binary @portrait.jpg localhost:8080/face -o face.glb

One client for the whole program: its one connection carries every request. FACE3D_URL names the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from face3d_client import AsyncFace3DClient, Face3DError, Overloaded, RequestError, Timeout
from face3d_client import __version__ as version
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncFace3DClient(timeout=30) as client:
        app.state.client = client
        yield


app = FastAPI(title="Photograph to 3D face", version=version, lifespan=_life)


@app.exception_handler(Face3DError)
async def _tell(_: Request, error: Face3DError) -> JSONResponse:
    """The service's sentence, with a status that says whose turn it is."""
    status = 502
    if isinstance(error, RequestError):
        status = 422  # another picture or option
    elif isinstance(error, Overloaded):
        status = 503  # the same again, later
    elif isinstance(error, Timeout):
        status = 504
    headers = {"retry-after": "2"} if status == 503 else {}
    return JSONResponse({"error": type(error).__name__, "message": error.message}, status, headers)


@app.post("/face", response_class=Response)
async def face(
    request: Request,
    number: Annotated[int, Query(alias="face", ge=0, lt=64, description="which face, in the order of score")] = 0,
    neutral: Annotated[bool, Query(description="without the expression")] = False,
) -> Response:
    """The picture's bytes in the body; a GLB (metres, y up) comes back."""
    client: AsyncFace3DClient = request.app.state.client
    result = await client.reconstruct(
        await request.body(),
        face=number,
        pose="neutral" if neutral else "head",
        outputs=["mesh", "face"],
    )
    return Response(result.glb, media_type="model/gltf-binary", headers={"x-face-score": f"{result.score:.3f}"})


@app.get("/health")
async def health(request: Request) -> dict[str, bool]:
    """Whether the server behind this one is ready."""
    return {"ready": await request.app.state.client.ready()}
