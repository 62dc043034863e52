"""Made-up rows of fid.jsonl, for tests of what is made from them."""

import dataclasses

from eval import results

REFERENCE = results.ReferenceIdentity(1, "digits", "train", "0123456789ab", 1797, "pixels", "", "")
IDENTITY = results.Identity("sgflow", 100, "ema", "fedcba987654", 1, "flow_map", "uniform", 2000, 0, REFERENCE)
SCORES = results.Scores(1.0, 0.1, (0.9, 1.2, 0.8, 1.1), 0.9, 0.01, 0.002, 0.7, 0.6, None)


def row(steps: int = 1, value: float = 1.0, class_counts=None, **identity) -> results.Row:
    """A row with these fields; those of the reference may be given too."""
    fields = {field.name for field in dataclasses.fields(results.ReferenceIdentity)}
    reference = dataclasses.replace(REFERENCE, **{k: v for k, v in identity.items() if k in fields})
    rest = {k: v for k, v in identity.items() if k not in fields}
    scores = dataclasses.replace(SCORES, value=value, class_counts=class_counts)
    return results.Row(dataclasses.replace(IDENTITY, steps=steps, reference=reference, **rest), scores)
