"""The application, for `python -m serve` or `gunicorn serve.app:app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline

from serve import __version__, openapi, page, problems
from serve.formats import conllu, json_results, tree_drawing
from serve.middleware.api_keys import ApiKeyCheck
from serve.middleware.request_log import RequestLog
from serve.models.discovery import Load, StartError, load_bundle
from serve.models.selection import Model, Models
from serve.openapi import problem_responses
from serve.requests.negotiation import preferred
from serve.schemas import Info, ModelInfo, ModelList, QueueBounds, RefusedModel, Status, Times
from serve.service import Service
from serve.settings import Settings
from serve.telemetry import metrics

TREE_WRITERS = {each.MEDIA_TYPE: each.write for each in (json_results, conllu, tree_drawing)}
"""How the answers of /parse are written, by media type; the first is the default."""

ModelName = Annotated[str | None, Query(description="The model, as in a request of /ner.", max_length=200)]

log = logging.getLogger("serve")


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
    if settings.api_keys is not None:
        app.add_middleware(ApiKeyCheck, keys=lambda: service.keys)
    app.add_middleware(
        RequestLog,
        draining=lambda: service.draining,
        log_each=settings.access_log,
        tracer=lambda: service.tracer,
    )
    problems.install(app)
    openapi.install(app, keys=settings.api_keys is not None)

    @app.post("/ner", **openapi.NER)
    async def ner(request: Request) -> Response:
        """Finds the named entities of each text or sentence."""
        answered = await service.annotate(request, "ner")
        return Response(await answered.written(json_results.write), media_type=json_results.MEDIA_TYPE)

    @app.post("/parse", **openapi.PARSE)
    async def parse_trees(request: Request) -> Response:
        """Parses each text or sentence. `Accept: text/x-conllu` gives CoNLL-U, `text/html` drawings."""
        answered = await service.annotate(request, "parse")
        media_type = preferred(request.headers.get("accept", "*/*"), *TREE_WRITERS)
        charset = "" if media_type == json_results.MEDIA_TYPE else "; charset=utf-8"
        headers = {"Vary": "Accept", "Content-Type": media_type + charset}
        return Response(await answered.written(TREE_WRITERS[media_type]), headers=headers)

    def add_stream(task: str) -> None:
        @app.post(f"/{task}/stream", **openapi.stream(task))
        async def stream(request: Request, model: ModelName = None) -> Response:
            """Answers each line with a line, in order, while later lines are still sent.

            A line that cannot be read has an `error` instead of a result, and the rest goes on.
            """
            return service.stream(request, task, model)

    add_stream("ner")
    add_stream("parse")

    @app.get("/models", summary="The models", operation_id="models", responses=problem_responses("not_ready"))
    async def list_models() -> ModelList:
        """Names the models with their labels and scores, the default of each task, and refused bundles."""
        models = service.models
        refused = [RefusedModel(id=id, reason=reason) for id, reason in models.refused.items()]
        return ModelList(models=_infos(models), refused=refused)

    @app.get(
        "/info", summary="Models and limits", operation_id="info", responses=problem_responses("not_ready")
    )
    async def info() -> Info:
        """Names the version, the models, and what a request may ask for."""
        return Info(
            version=__version__,
            models=_infos(service.models),
            limits=settings.limits,
            queue=QueueBounds(**settings.model_dump(include=set(QueueBounds.model_fields))),
            times=Times(**settings.model_dump(include=set(Times.model_fields))),
        )

    @app.get("/livez", summary="Whether the process answers", operation_id="livez")
    async def livez() -> Status:
        """Answers as long as the event loop runs, also while models are busy."""
        return Status(status="live")

    @app.get(
        "/readyz",
        summary="Whether to send requests",
        operation_id="readyz",
        responses=problem_responses("not_ready"),
    )
    async def readyz() -> Status:
        """Answers 200 once every bundle is loaded; 503 before, and as soon as the server is told to stop."""
        assert service.models
        if service.draining:
            raise problems.Problem("not_ready", "The server is stopping; send new requests to another one.")
        return Status(status="ready")

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        operation_id="metrics",
        response_class=PlainTextResponse,
    )
    async def prometheus(request: Request) -> Response:
        """The sum over all workers, in Prometheus' text format or, if asked for, OpenMetrics."""
        service.publish_queues()
        accept = request.headers.get("accept", "")
        content, content_type = await asyncio.to_thread(metrics.exposition, accept)
        return Response(content, headers={"Content-Type": content_type})

    page.install(app)
    # Routes are tried in turn, and these are asked for the most.
    app.router.routes.sort(key=lambda route: getattr(route, "path", "") not in ("/ner", "/parse"))
    return app


def _infos(models: Models) -> list[ModelInfo]:
    return [
        ModelInfo(
            id=model.id,
            name=model.name,
            version=model.version,
            task=model.manifest.task,
            role=model.manifest.role,
            default=models.default(model.manifest.task) is model,
            language=model.manifest.language,
            segmenter=model.reading.segmenter.language,
            labels=_labels(model),
            scores=model.manifest.scores,
            provider=model.predictor.providers[0],  # it leaves to others what it cannot run
        )
        for model in models.all
    ]


def _labels(model: Model) -> list[str]:
    """The labels that its answers may hold: relations, or the types of entities (B-LOC, I-LOC: LOC)."""
    labels = model.manifest.labels
    if model.manifest.task == "parse":
        return list(labels)
    return sorted({tag.partition("-")[2] for tag in labels if tag != "O"})


app = create_app()
