"""Texts of licences that go into a package beside the weights that they are for."""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.experiment.folder import Experiment
from nyuseg.models.licences import Licence, weights_licence
from nyuseg.utils.errors import UserError

# Of others it is not known what Kaggle makes of them: it unpacks archives.
SUFFIXES = (".txt", ".md", ".html")


def licence_texts(experiment: Experiment, paths: Sequence[Path]) -> dict[str, bytes]:
    """The texts by the names of their copies, LICENSE-<encoder>.<suffix>.

    paths: a file for each licence that has to go with the weights of the experiment, or of a
    blend's members, in their order; what is given beyond these goes along, too. Raises UserError
    for a file too few, and for one that cannot be read or is no text.
    """
    found = [weights_licence(part.experiment.config.model) for part in experiment.parts]
    needed: dict[str, Licence] = {}
    for one in found:
        if one is not None and one.must_travel:
            needed.setdefault(one.name, one)
    licences = list(needed.values())
    if len(paths) < len(licences):
        lacking = licences[len(paths)]
        order = f" (one for each of {', '.join(one.name for one in licences)}, in this order)"
        raise UserError(
            f"--licence FILE{order if len(licences) > 1 else ''}: a copy of {lacking.name} has to "
            f"go with weights made of {lacking.encoder}'s; its text is at {lacking.page}"
        )
    encoders = [one.encoder for one in licences]
    encoders += [str(number) for number in range(len(licences) + 1, len(paths) + 1)]
    return {
        f"LICENSE-{encoder}{path.suffix if path.suffix in SUFFIXES else '.txt'}": _read(path)
        for encoder, path in zip(encoders, paths, strict=True)
    }


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes()
        if text.decode().strip():
            return text
    except UnicodeDecodeError:
        raise UserError(f"--licence {path}: not a text in UTF-8") from None
    except OSError as error:
        raise UserError(f"--licence {path}: {error.strerror}") from None
    raise UserError(f"--licence {path}: empty; give the text of the licence")
