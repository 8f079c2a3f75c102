"""The application, for `python -m serve` or `gunicorn serve.app:app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated as With

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline

from serve import __version__, openapi, problems
from serve import page as demo
from serve.formats import conllu
from serve.formats import tree_drawing as drawing
from serve.middleware.api_keys import KeyGuard
from serve.middleware.body_limit import BodyLimit
from serve.middleware.request_log import Watch
from serve.models.discovery import Load, StartError, load_bundle
from serve.models.selection import Model, Models
from serve.problems import documented
from serve.requests.items import parsed, recognised
from serve.requests.negotiation import preferred
from serve.schemas import (
    Info,
    ModelInfo,
    ModelList,
    NerResponse,
    ParseResponse,
    QueueBounds,
    RefusedModel,
    Status,
    Times,
)
from serve.service import Service, written
from serve.settings import Settings
from serve.telemetry import metrics

JSON = "application/json"
STREAMS = frozenset({"/ner/stream", "/parse/stream"})

log = logging.getLogger("serve")

ModelName = With[str | None, Query(description="The model, as in a request of /ner.", max_length=200)]


def create_app(settings: Settings | None = None, *, load: Load = load_bundle) -> FastAPI:
    """The application over the bundles of `settings.bundles`, which load when it starts.

    `load` opens one bundle's folder; tests give their own. `app.state.service` is what a server needs of it.
    """
    settings = settings or Settings()
    service = Service(settings, load)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start(strict=not getattr(app.state, "replaces_a_worker", False))
        except StartError as error:
            log.error("%s", error)
            raise
        yield
        service.stop()

    app: FastAPI = FastAPIOffline(
        title="Structural knowledge distillation", version=__version__, description=openapi.DESCRIPTION,
        lifespan=lifespan, redoc_url=None, redirect_slashes=False, static_url="/docs/files",
        # Its own spans would have the address as the client wrote it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )  # fmt: skip
    app.state.service = service
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=settings.limits.body_bytes, unlimited=STREAMS)
    app.add_middleware(KeyGuard, keys=lambda: service.keys)
    problems.install(app)
    app.add_middleware(
        Watch,
        draining=lambda: service.draining,
        ended=service.arrived,
        log_each=settings.access_log,
        trace_each=settings.tracing,
    )
    openapi.install(app, keys=settings.api_keys is not None)
    demo.install(app)

    @app.post(
        "/ner",
        summary="Named entities",
        operation_id="recognise",
        response_model=NerResponse,
        responses=documented(*openapi.ANNOTATION_PROBLEMS) | openapi.ner_answer(),
        openapi_extra=openapi.annotation_body("Ada Lovelace was born in London."),
    )
    async def ner(request: Request) -> Response:
        """Finds the named entities of each text or sentence."""
        done = await service.annotate(request, "ner")

        def write() -> str:
            results = recognised(done.items, done.answers)
            return NerResponse(model=done.model.id, results=results).model_dump_json()

        return Response(await written(done, write), media_type=JSON)

    @app.post(
        "/parse",
        summary="Dependency trees",
        operation_id="parse",
        response_model=ParseResponse,
        responses=documented(*openapi.ANNOTATION_PROBLEMS) | openapi.parse_answer(),
        openapi_extra=openapi.annotation_body("She sleeps."),
    )
    async def parse_trees(request: Request) -> Response:
        """Parses each text or sentence. `Accept: text/x-conllu` gives CoNLL-U, `text/html` drawings."""
        done = await service.annotate(request, "parse")
        accept = request.headers.get("accept", "*/*")
        media_type = preferred(accept, JSON, conllu.MEDIA_TYPE, drawing.MEDIA_TYPE)

        def write() -> str:
            results = parsed(done.items, done.answers)
            if media_type == conllu.MEDIA_TYPE:
                return conllu.write(done.items, results, done.model.id)
            if media_type == drawing.MEDIA_TYPE:
                direction = drawing.direction_of(done.model.manifest.language)
                return drawing.as_html(results, done.model.id, direction)
            return ParseResponse(model=done.model.id, results=results).model_dump_json()

        charset = "" if media_type == JSON else "; charset=utf-8"
        headers = {"Vary": "Accept", "Content-Type": media_type + charset}
        return Response(await written(done, write), headers=headers)

    @app.post(
        "/ner/stream",
        summary="Named entities of JSON lines",
        operation_id="recognise_stream",
        response_class=Response,
        responses=documented(*openapi.COMMON_PROBLEMS) | openapi.stream_answer("ner"),
        openapi_extra=openapi.stream_body(),
    )
    async def ner_stream(request: Request, model: ModelName = None) -> Response:
        """Answers each line with a line, in order, while later lines are still sent.

        A line that cannot be read has an `error` instead of a result, and the rest goes on.
        """
        return service.stream(request, "ner", model)

    @app.post(
        "/parse/stream",
        summary="Dependency trees of JSON lines",
        operation_id="parse_stream",
        response_class=Response,
        responses=documented(*openapi.COMMON_PROBLEMS) | openapi.stream_answer("parse"),
        openapi_extra=openapi.stream_body(),
    )
    async def parse_stream(request: Request, model: ModelName = None) -> Response:
        """Answers each line with a line, in order, while later lines are still sent.

        A line that cannot be read has an `error` instead of a result, and the rest goes on.
        """
        return service.stream(request, "parse", model)

    @app.get(
        "/models",
        summary="The models",
        operation_id="models",
        responses=documented("not_ready") | openapi.answer_example(openapi.MODELS_EXAMPLE),
    )
    async def models() -> ModelList:
        """Names the models with their labels and scores, the default of each task, and refused bundles."""
        state = service.state
        refused = [RefusedModel(id=id, reason=reason) for id, reason in state.refused.items()]
        return ModelList(models=_infos(state.models), refused=refused)

    @app.get(
        "/info",
        summary="Models and limits",
        operation_id="info",
        responses=documented("not_ready") | openapi.answer_example(openapi.INFO_EXAMPLE),
    )
    async def info() -> Info:
        """Names the version, the models, and what a request may ask for."""
        return Info(
            version=__version__,
            models=_infos(service.state.models),
            limits=settings.limits,
            queue=QueueBounds(**settings.model_dump(include=set(QueueBounds.model_fields))),
            times=Times(**settings.model_dump(include=set(Times.model_fields))),
        )

    @app.get(
        "/livez",
        summary="Whether the process answers",
        operation_id="livez",
        responses=openapi.answer_example({"status": "live"}),
    )
    async def livez() -> Status:
        """Answers as long as the event loop runs, also while models are busy."""
        return Status(status="live")

    @app.get(
        "/readyz",
        summary="Whether to send requests",
        operation_id="readyz",
        responses=documented("not_ready") | openapi.answer_example({"status": "ready"}),
    )
    async def readyz() -> Status:
        """Answers 200 once every bundle is loaded; 503 before, and as soon as the server is told to stop."""
        assert service.state
        if service.draining:
            raise problems.Problem("not_ready", "The server is stopping; send new requests to another one.")
        return Status(status="ready")

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        operation_id="metrics",
        response_class=PlainTextResponse,
        responses=openapi.answer_example(openapi.METRICS_EXAMPLE, "text/plain"),
    )
    async def prometheus(request: Request) -> Response:
        """The sum over all workers, in Prometheus' text format or, if asked for, OpenMetrics."""
        accept = request.headers.get("accept", "")
        service.tell()
        content, content_type = await asyncio.to_thread(metrics.exposition, accept)
        return Response(content, headers={"Content-Type": content_type})

    # Routes are tried in turn, and these are asked for the most.
    app.router.routes.sort(key=lambda route: getattr(route, "path", "") not in ("/ner", "/parse"))
    return app


def _infos(models: Models) -> list[ModelInfo]:
    return [_info(model, default=models.default(model.manifest.task) is model) for model in models.all]


def _info(model: Model, *, default: bool) -> ModelInfo:
    manifest = model.manifest
    return ModelInfo(
        id=model.id,
        name=model.name,
        version=model.version,
        task=manifest.task,
        role=manifest.role,
        default=default,
        language=manifest.language,
        segmenter=model.segmenter.language,
        labels=model.labels,
        scores=manifest.scores,
        provider=model.provider,
    )


app = create_app()
