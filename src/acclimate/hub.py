"""Models on the Hugging Face hub: saved as a folder with a model card, uploaded, and loaded back.

A folder holds the model file as a run leaves it, ``config.json`` for people and for the hub's count of downloads,
``results.md`` if the run had one, and the card, which is ``README.md``.
"""

from __future__ import annotations

import html
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from acclimate import __version__
from acclimate.errors import UserError
from acclimate.files import atomic, write_json
from acclimate.networks.weights import save_model
from acclimate.prediction import Model, load
from acclimate.run import MODEL

RESULTS = "results.md"
TAGS = ["domain-adaptation", "semantic-segmentation", "unsupervised-domain-adaptation"]


@dataclass(frozen=True)
class HubModel(Model, ModelHubMixin, library_name="acclimate", pipeline_tag="image-segmentation", tags=TAGS):
    """A `Model` with ``save_pretrained(folder)``, ``push_to_hub(repo_id)`` and ``from_pretrained(folder or repo_id)``.

    These are huggingface_hub's; a ``README.md`` that a folder has already is kept. Make one by `of`.
    """

    results: str = ""
    """The run's table of results, as Markdown."""

    # The mix-in would else set it on the instance, and a frozen dataclass not let it.
    _hub_mixin_config: ClassVar[dict[str, str]] = {"library_name": "acclimate"}  # pyrefly: ignore[bad-override]

    @classmethod
    def of(cls, run: str | Path, **options: Any) -> Self:
        """The model of a run folder, with the run's results, or of a model file.

        Args:
            run: what `load` takes.
            options: ``device``, ``width``, ``how`` as in `load`.

        Raises:
            UserError: as `load`.
        """
        model = load(run, **options)
        table = Path(run) / RESULTS
        results = table.read_text(encoding="utf-8") if table.is_file() else ""
        return cls(model.network, model.space, model.width, model.how, results)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Self:
        """The model in a folder or repository that `save_pretrained` or `push_to_hub` filled.

        Args:
            source: the folder, or ``owner/name`` on the hub.
            options: huggingface_hub's ``revision``, ``token``, ``cache_dir``, …, and what `of` takes.

        Raises:
            UserError: neither a folder nor a repository that can be reached, or no model in it.
        """
        try:
            return super().from_pretrained(source, **options)
        except (OSError, ValueError) as error:  # huggingface_hub's errors are either
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{source}: neither a folder with a {MODEL} nor a repository that can be had from the hub ({reason})"
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> Self:
        if Path(model_id).is_dir():
            return cls.of(model_id, **options)

        def fetched(name: str) -> Path:
            return Path(hf_hub_download(
                model_id, name, revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token,
            ))  # fmt: skip

        file = fetched(MODEL)
        with suppress(EntryNotFoundError):
            fetched(RESULTS)  # into the same folder
        return cls.of(file.parent, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory / MODEL, self.network, self.space, self.network.choices, {"width": self.width})
        write_json(save_directory / "config.json", {
            "library_name": "acclimate",
            "library_version": __version__,
            "classes": dict(zip(self.space.classes, map(_hex, self.space.colours), strict=True)),
            "image_width": self.width,
        })  # fmt: skip
        if self.results:
            with atomic(save_directory / RESULTS) as temporary:
                temporary.write_text(self.results, encoding="utf-8")

    def generate_model_card(self, license: str = "unknown", **front_matter: Any) -> ModelCard:
        """The card: what the model is for, its classes, the run's results, and how to use it.

        Args:
            license: of the weights, which depends on the images they were trained with: yours to say
                (``save_pretrained(…, model_card_kwargs={"license": "cc-by-4.0"})``).
            front_matter: further entries at the card's head, such as ``datasets``.
        """
        head: dict[str, Any] = {**self._hub_mixin_info.model_card_data.to_dict(), "license": license, **front_matter}
        return ModelCard(f"---\n{ModelCardData(**head).to_yaml()}\n---\n\n{self._card()}")

    def _card(self) -> str:
        network = self.network.choices
        backbone = "ResNet-101" if network.architecture == "deeplab" else network.backbone
        return _CARD.format(
            count=len(self.space),
            architecture=f"{network.architecture} on {backbone}",
            width=self.width,
            classes="\n".join(
                f"| {number} | {_escaped(name)} | `{_hex(colour)}` |"
                for number, (name, colour) in enumerate(zip(self.space.classes, self.space.colours, strict=True))
            ),
            results=self.results or "No table of results came with this model.\n",
        )


_CARD = """# A semantic segmentation model, adapted without labels

It divides photos into {count} classes. Acclimate trained it on labelled images of another kind and adapted it to
unlabelled photos of the kind that it is for, by class-balanced pixel-level self-labelling (CPSL, Li et al., CVPR 2022).

## Use

```python
from acclimate import HubModel

model = HubModel.from_pretrained("OWNER/NAME")  # or the folder this card lies in
label_HW = model.predict("photo.jpg")  # class numbers, of the photo's size
```

Network: {architecture}. `predict` scales images to a width of {width} pixels for it and does all other preprocessing.

| number | class | colour |
|---:|---|---|
{classes}

## Results

IoU per class in percent, for the stages of the training, as far as there were labelled images to measure on; what is
called *estimated* comes from unlabelled images alone.

{results}
## Limits

It knows photos like those it was adapted to, and always decides for one of its classes. Rare and small classes are the
least reliable: see the table. Do not use it where a wrong label can do harm.
"""


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)


def _escaped(name: str) -> str:
    """Names of classes are free: none may end a cell or become a tag."""
    return html.escape(name, quote=False).replace("\\", "\\\\").replace("|", "\\|")
