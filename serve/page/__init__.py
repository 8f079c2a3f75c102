"""The demo page at `/`: the files of page/, under a content security policy that allows nothing else."""

from pathlib import Path

from fastapi import FastAPI, Response

from serve.problems import Problem

PAGE = Path(__file__).parent

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

ASSETS = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}


def install(app: FastAPI) -> None:
    """Adds the page and its assets to the application, outside its OpenAPI description."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _answer("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise Problem("not_found", f"The page has no such file; it has {', '.join(sorted(ASSETS))}.")
        return _answer(name)


def _answer(name: str) -> Response:
    return Response(ASSETS[name], media_type=MEDIA_TYPES[Path(name).suffix], headers=HEADERS)
