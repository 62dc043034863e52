"""What a row of results says: the identity of what was measured, and its scores."""

import dataclasses

from sgflow_jax import run_sampler

VERSION = 2  # raised whenever the code measures something else, so that older numbers are not mixed in


@dataclasses.dataclass(frozen=True)
class ReferenceIdentity:
    """What generated examples are compared with, and in which features.

    version: of the measuring code. data, split: the data set. fingerprint: of its examples, which tells data sets of
    one name apart. reference_count: their number. features, weights, resize: see `eval.features.interface.Features`.
    moments: the name of a file of published moments; then split is "", reference_count 0, and fingerprint the first
    digits of the file's SHA-256. "" if all is known of the examples, as in rows of older versions.
    """

    version: int
    data: str
    split: str
    fingerprint: str
    reference_count: int
    features: str
    weights: str
    resize: str
    moments: str = ""

    @property
    def title(self) -> str:
        """The name of the examples."""
        return "/".join(filter(None, [self.data, self.split]))


@dataclasses.dataclass(frozen=True)
class Identity:
    """What was measured. Two distances are comparable only if these agree, apart from what is being compared.

    objective: that the run was trained with. checkpoint_step: training steps of the checkpoint. parameters: see
    `access.open`. network: their fingerprint. network_precision: `model.precision` (a row's "precision" is a
    score). calls: network calls per example, "steps" in the file. method, grid: see `sgflow_jax.sampling.Sampler`.
    num_samples, seed: of the generated examples. guidance, guidance_interval: see `run_sampler.told`. labels: "data"
    for a network with labels, drawn with the frequencies of its training data; "" without.

    Older versions wrote rows without the last three, and drew labels evenly: `read` gives these rows the defaults.
    """

    objective: str
    checkpoint_step: int
    parameters: str
    network: str
    network_precision: str
    calls: int
    method: str
    grid: str
    num_samples: int
    seed: int
    reference: ReferenceIdentity
    guidance: float = 1.0
    guidance_interval: str = ""
    labels: str = ""

    @property
    def guided(self) -> str:
        """The guidance in a few words; "" for none."""
        return run_sampler.told(self.guidance, self.guidance_interval)


@dataclasses.dataclass(frozen=True)
class Given:
    """What was measured of images that other code made; see `Identity`.

    samples: their path. samples_fingerprint: of their pixels, in the order of their paths, see
    `fingerprint.of_examples`.
    """

    samples: str
    samples_fingerprint: str
    num_samples: int
    reference: ReferenceIdentity


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores from one pass over generated examples; None where there are too few examples, only the moments of the
    reference, or no classifier.

    value: squared Fréchet distance. value_error: its standard error. value_parts: of disjoint quarters of the
    generated examples. value_infinite: extrapolated to infinitely many. kernel, kernel_error: kernel distance and its
    standard error. precision, recall: by k-NN manifolds. class_counts: generated examples per class, as classified.
    """

    value: float
    value_error: float | None
    value_parts: tuple[float, ...] | None
    value_infinite: float | None
    kernel: float | None
    kernel_error: float | None
    precision: float | None
    recall: float | None
    class_counts: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Origin:
    """sgflow_jax: the version of the package that measured a row; older ones did not say."""

    sgflow_jax: str = ""
