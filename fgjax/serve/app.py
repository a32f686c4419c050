"""The server: a page, a JSON API with a schema, and limits."""

import asyncio
import contextlib
import dataclasses
import importlib.resources
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

import anyio.to_thread
import fastapi
import fastapi.exceptions
import pydantic
from fastapi.responses import HTMLResponse, JSONResponse

from fgjax import __version__
from fgjax.data import images
from fgjax.errors import UserError
from fgjax.serve.answers import Answers
from fgjax.serve.batching import Batcher, Busy

log = logging.getLogger(__name__)

PAGE = importlib.resources.files("fgjax.serve") / "page.html"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request, and all that wait, may take.

    Attributes:
      images: of a request.
      bytes: of an image.
      pixels: of an image, by its header, before anything is decoded.
      waiting: images in the queue; more are answered by 429.
      explanations: of them, images to explain; each takes as long as dozens of others.
    """

    images: int = 16
    bytes: int = 20_000_000
    pixels: int = 50_000_000
    waiting: int = 64
    explanations: int = 4

    @property
    def body(self) -> int:
        """Bytes of a whole request."""
        return self.images * self.bytes + 100_000


class Guess(pydantic.BaseModel):
    """A class and how likely it is."""

    name: str = pydantic.Field(alias="class")
    probability: float


class Neighbour(pydantic.BaseModel):
    """An image of the index."""

    name: str
    similarity: float = pydantic.Field(description="cosine, at most 1")
    thumbnail: str = pydantic.Field(description="an address for <img>, or nothing")


class Answer(pydantic.BaseModel):
    """What is said of an image; boxes are top, left, bottom, right as shares of the image."""

    file: str
    error: str | None = pydantic.Field(default=None, description="why there is no answer")
    top: list[Guess] = []
    known: bool | None = pydantic.Field(
        default=None, description="false: none of the classes; null: nobody knows"
    )
    false_accepts: float | None = pydantic.Field(
        default=None, description="share of things of no class that look at least as sure"
    )
    box: list[float] | None = pydantic.Field(
        default=None, description="the object, if it was looked for"
    )
    parts: list[list[float]] = []
    neighbours: list[Neighbour] = []


class Explanation(pydantic.BaseModel):
    """What an answer rests on: squares of the image were hidden, one after the other."""

    file: str
    error: str | None = pydantic.Field(default=None, description="why there is none")
    name: str | None = pydantic.Field(
        default=None, alias="class", description="the likeliest class; null of a model without"
    )
    squares: list[list[float]] = pydantic.Field(
        default=[], description="by how much its log-odds fall where that square is hidden"
    )
    where: str = pydantic.Field(
        default="", description="where it falls most, in words; empty if it falls nowhere"
    )


class Model(pydantic.BaseModel):
    """What answers."""

    name: str
    method: str
    dataset: str
    classes: list[str]
    top1: float | None = pydantic.Field(description="share of test images named right")
    recall_at_1: float | None
    calibrated: bool = pydantic.Field(description="whether probabilities mean what they say")
    unknown_accepted: float | None = pydantic.Field(
        default=None, description="share of things of no class that is taken for one, if known"
    )
    index: int = pydantic.Field(description="images that similar ones are looked for among")


class Problem(pydantic.BaseModel):
    """Why a request was refused."""

    detail: str


@dataclasses.dataclass(frozen=True)
class ToExplain:
    """An image in the queue that wants an explanation, not an answer."""

    image: images.Encoded


File = Annotated[fastapi.UploadFile, fastapi.File(description="one image")]
_REFUSALS = {code: {"model": Problem} for code in (400, 411, 413, 422, 429)}


def create_app(answers: Answers, limits: Limits | None = None) -> fastapi.FastAPI:
    """An ASGI application that answers by a run. It keeps nothing and changes nothing."""
    limits = limits or Limits()
    batcher: Batcher[images.Encoded | ToExplain, dict] = Batcher(
        lambda items: _answered(answers, items), most=answers.batch_size, waiting=limits.waiting
    )
    explaining = asyncio.Semaphore(limits.explanations)
    several = fastapi.File(
        min_length=1, max_length=limits.images, description="images, each a field `files`"
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = fastapi.FastAPI(
        title=f"fgjax: {answers.title}", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # their pages load scripts from elsewhere
    )  # fmt: skip
    _guard(app, limits)
    page = PAGE.read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    def show() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        return HTMLResponse(
            page.replace("NONCE", nonce),
            headers={
                "Content-Security-Policy": (
                    f"default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; "
                    f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; "
                    "form-action 'none'; frame-ancestors 'none'"
                )
            },
        )

    @app.get("/api/model")
    def model() -> Model:
        """What answers, and how good it was on its test images."""
        return Model(**answers.about)

    @app.post("/api/predict", responses=_REFUSALS)  # type: ignore[arg-type]
    async def predict(files: list[fastapi.UploadFile] = several) -> list[Answer]:
        """An answer for each image, in the order sent; an image that cannot be read says why."""
        given = [(_plain(file.filename), await file.read(limits.bytes + 1)) for file in files]
        checked = await anyio.to_thread.run_sync(
            lambda: [_checked(name, data, limits) for name, data in given]
        )
        fine: list[images.Encoded | ToExplain] = [
            one for one in checked if isinstance(one, images.Encoded)
        ]
        try:
            found = iter(await batcher(fine))
        except Busy:
            raise _busy() from None
        return [
            Answer(file=name, error=one)
            if isinstance(one, str)
            else Answer(file=name, **next(found))
            for (name, _), one in zip(given, checked, strict=True)
        ]

    @app.post("/api/explain", responses=_REFUSALS)  # type: ignore[arg-type]
    async def explain(file: File) -> Explanation:
        """What the answer for an image rests on; it takes as long as dozens of answers."""
        name, data = _plain(file.filename), await file.read(limits.bytes + 1)
        checked = await anyio.to_thread.run_sync(lambda: _checked(name, data, limits))
        if isinstance(checked, str):
            return Explanation(file=name, error=checked)
        if explaining.locked():
            raise _busy()
        async with explaining:
            try:
                (found,) = await batcher([ToExplain(checked)])
            except Busy:
                raise _busy() from None
        return Explanation(file=name, **found)

    return app


def _busy() -> fastapi.HTTPException:
    said = "too many images are waiting: try again in a moment."
    return fastapi.HTTPException(429, said, {"Retry-After": "2"})


def _answered(answers: Answers, items: list[images.Encoded | ToExplain]) -> list[dict]:
    """An answer, or an explanation, for each of what waited together."""
    plain = [item for item in items if not isinstance(item, ToExplain)]
    found = iter(answers(plain) if plain else [])
    return [
        answers.explain(item.image) if isinstance(item, ToExplain) else next(found)
        for item in items
    ]


def _guard(app: fastapi.FastAPI, limits: Limits) -> None:
    """Refuse bodies by their announced length, and tell nobody more than needed."""

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def refused(request: fastapi.Request, error: Exception) -> JSONResponse:
        assert isinstance(error, fastapi.exceptions.RequestValidationError)
        if any(one["type"] == "too_long" for one in error.errors()):
            said = f"these are too many images: send at most {limits.images} at once."
            return JSONResponse({"detail": said}, 413)
        field = "one image as a form field named `file`"
        if not request.url.path.endswith("/explain"):
            field = "images, each as a form field named `files`"
        return JSONResponse({"detail": f"send {field}."}, 422)

    @app.middleware("http")
    async def guarded(request: fastapi.Request, call_next):
        if request.method == "POST":
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return JSONResponse({"detail": "say how long the request is."}, 411)
            if int(length) > limits.body:
                return JSONResponse(
                    {"detail": f"the request is too large: at most {limits.body:,} bytes."}, 413
                )
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response


def _plain(name: str | None) -> str:
    """A file's name without folders, for the answer."""
    return (name or "image").replace("\\", "/").rsplit("/", 1)[-1][:200]


def _checked(name: str, data: bytes, limits: Limits) -> images.Encoded | str:
    """The image, or why it is none."""
    if len(data) > limits.bytes:
        return f"{name} is larger than {limits.bytes:,} bytes."
    if not data:
        return f"{name} is empty."
    try:
        height, width = images.size_of(data)
    except ValueError:
        return f"{name} is no image that can be read: send JPEG, PNG, WebP or BMP."
    if height * width > limits.pixels:
        return f"{name} has {width} × {height} pixels, more than {limits.pixels:,}."
    try:
        return images.check(data, name)
    except UserError as error:
        return str(error)
