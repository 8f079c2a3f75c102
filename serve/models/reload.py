"""The models in use, and how others take their place while requests go on."""

import asyncio
import logging
from collections.abc import Hashable, Sequence
from functools import partial

from serve.batcher import Batcher, Bounds
from serve.models.discovery import Found, Load, StartError, find_bundles, fingerprint, load_checked
from serve.models.selection import Model, Models
from serve.settings import Settings
from serve.telemetry import metrics
from structural_kd.annotate.readers import ReaderSettings
from structural_kd.annotate.writers import RESULT_KEYS
from structural_kd.segment import Segmenter

DIGEST_CHARACTERS = 12

log = logging.getLogger("serve")


class Registry:
    """Finds, loads and replaces models, and shows them in the metrics.

    A request keeps the model that it began with until it is answered.
    """

    def __init__(self, settings: Settings, load: Load) -> None:
        self.models: Models | None = None
        self._settings = settings
        self._load = load
        self._bounds = Bounds(
            settings.max_batch_tokens, settings.max_queue_sentences, settings.max_queue_tokens
        )
        self._segmenters: dict[str, Segmenter] = {}
        self._seen: dict[str, Hashable] = {}
        self._refreshing = asyncio.Lock()

    async def start(self, *, strict: bool = True) -> None:
        """Loads all bundles.

        Raises:
            StartError: there are none; or one does not load and `strict` (else it is refused and logged).
        """
        await self._refresh(strict)
        if self.models is None or not self.models.all:
            raise StartError(f"no bundle in {self._settings.bundles} loads; see the errors above")

    def models_of(self, task: str) -> Sequence[Model]:
        """The models in use for a task."""
        return self.models.of(task) if self.models else ()

    async def refresh(self) -> bool:
        """Takes new and changed bundles into use and lets go of removed ones; whether anything changed.

        Nothing that fails here harms what is in use: a bundle that does not load is refused, and what it
        would have replaced goes on.
        """
        try:
            return await self._refresh(strict=False)
        except StartError as error:
            log.error("%s; what is loaded goes on", error)
            return False

    async def watch(self, seconds: float) -> None:
        """Refreshes for ever."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception:
                log.exception("looking for bundles in %s failed; it goes on", self._settings.bundles)

    async def _refresh(self, strict: bool) -> bool:
        async with self._refreshing:
            before = self.models or Models(())
            known = {model.id: model for model in before.all}
            refused = dict(before.refused)
            found = await asyncio.to_thread(find_bundles, self._settings.bundles)
            seen: dict[str, Hashable] = {}
            models: list[Model] = []
            for each in found:
                seen[each.id] = await asyncio.to_thread(fingerprint, each.folder)
                if seen[each.id] == self._seen.get(each.id):
                    if each.id in known:
                        models.append(known[each.id])
                    continue
                try:
                    models.append(await asyncio.to_thread(self._model, each))
                    refused.pop(each.id, None)
                    log.info("model %s, version %s: in use", each.id, models[-1].version)
                except StartError as error:
                    if strict:
                        raise
                    refused[each.id] = str(error)
                    log.error("model %s is refused, %s", each.id, error)
                    if each.id in known:
                        models.append(known[each.id])
            for gone in known.keys() - {model.id for model in models}:
                log.info("model %s: no longer in use, its folder is gone", gone)
            changed = seen != self._seen
            self._seen = seen
            if changed:
                refused = {id: reason for id, reason in refused.items() if id in seen}
                self.models = Models(tuple(models), self._settings.defaults, refused)
                metrics.count_reload("refused" if refused.keys() - before.refused.keys() else "changed")
                metrics.set_models(map(self.models.labels, models))
            return changed

    def _model(self, found: Found) -> Model:
        predictor = load_checked(found.folder, self._settings, self._load)
        task, limits = predictor.manifest.task, self._settings.limits
        language = predictor.manifest.language
        if language not in self._segmenters:
            self._segmenters[language] = Segmenter(language)
        reading = ReaderSettings(
            language=language,
            sentence_tokens=limits.sentence_tokens,
            block_bytes=limits.line_bytes,
            replaced=RESULT_KEYS[task],
            shared=self._segmenters[language],
        )
        version = found.version or predictor.manifest.digest[:DIGEST_CHARACTERS]
        batcher = Batcher(predictor, self._bounds, partial(metrics.observe_batch, found.id, version))
        return Model(found, predictor, version, reading, batcher)
