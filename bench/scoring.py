"""Time of scoring, beside that of the naive implementation.

Where the naive loop would take hours, a sample of its pairs is timed and scaled, and the printed
line says so.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from bench.timing import line, seconds

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real"
UNITS = {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}


def texts() -> tuple[dict[tuple[str, int], list[str]], dict[tuple[str, int], str]]:
    """Return references and predictions: the published ones if available, else random ones."""
    annotations = REAL / "annotations" / "milannotations_resnet152_imagenet.csv"
    file = REAL / "descriptions" / "milan" / "resnet152_imagenet__milan-places365.csv"
    if annotations.exists() and file.exists():
        from leaderboard.evaluation import predictions, references

        known = references.from_csv(annotations, "resnet152-imagenet")
        described = predictions.read(file, network="resnet152-imagenet")
        print("texts: the published annotations of resnet152-imagenet, MILAN's descriptions")
        return (
            {unit[1:]: list(t) for unit, t in zip(known.units, known.texts, strict=True)},
            {row.unit[1:]: row.description for row in described.rows},
        )
    print("texts: random, as many as the published annotations of resnet152-imagenet")
    generator = random.Random(0)
    words = [f"w{int(generator.paretovariate(0.7)) % 3000}" for _ in range(60_000)]
    phrase = lambda: " ".join(generator.choices(words, k=generator.choice((2, 3, 4, 5, 6, 8))))  # noqa: E731
    units = [(layer, i) for layer, n in UNITS.items() for i in range(n)]
    few = [phrase() for _ in range(550)]
    return {u: [phrase() for _ in range(3)] for u in units}, {
        u: generator.choice(few) for u in units
    }


def lexical(references: dict, predictions: dict) -> None:
    """Time all metrics that need no model, and a naive loop over the same pairs."""
    from rouge_score.rouge_scorer import RougeScorer

    import leaderboard
    from leaderboard.evaluation.predictions import from_texts
    from leaderboard.evaluation.references import References
    from milannotations import Unit

    network = "resnet152-imagenet"
    units = tuple(Unit(network, *key) for key in references)
    known = References(
        units,
        tuple(tuple(t) for t in references.values()),
        ("train",) * len(units),
        (None,) * len(units),
        "bench",
        network,
    )
    described = from_texts(units, [predictions[unit[1:]] for unit in units])
    names = ("default", "lexical")
    spent = {
        name: seconds(lambda name=name: leaderboard.score(described, known, [name]))
        for name in names
    }
    scorer = RougeScorer(["rougeL"])
    sample = random.Random(0).choices(list(references), k=3000)
    pairs = list(zip(sample, sample[1:] + sample[:1], strict=True))
    loop = seconds(lambda: [scorer.score(references[b][0], predictions[a]) for a, b in pairs])
    # the method against three references and the human against two, all pairs of a layer
    n_pairs = sum(n * n * (3 + 3 * 2) for n in UNITS.values())
    naive = loop / len(pairs) * n_pairs
    print(
        "\nLexical metrics, all-pairs matrices, floors, leave-one-out human, 1,000 resamples; "
        "3,904 units"
    )
    line("default metrics", spent["default"], "s", "aim: under 60")
    line("every lexical metric", spent["lexical"], "s", "aim: under 60")
    line(
        f"naive loop for ROUGE-L alone ({n_pairs / 1e6:.0f} M pairs, scaled from 3,000) "
        "/ every lexical metric",
        naive / spent["lexical"],
    )


def neural(references: dict, predictions: dict) -> None:
    """Time BERTScore and embeddings, and a bare pass of the model over the distinct texts."""
    import torch
    from bert_score import BERTScorer

    from leaderboard import metrics, statistics
    from leaderboard.metrics.text import normalise
    from leaderboard.metrics.text_models import OFFLINE_LAYERS, offline_folder

    folder = offline_folder()
    if folder is None:
        print("\nNo offline model. To time BERTScore: pip install 'milannotations[offline]'")
        return
    described = [normalise(predictions[unit]) for unit in references]
    sets = [tuple(map(normalise, t)) for t in references.values()]
    distinct = sorted({*described, *(text for members in sets for text in members)}, key=len)
    scorer = BERTScorer(model_type=str(folder), num_layers=OFFLINE_LAYERS)
    tokenizer, model = scorer._tokenizer, scorer._model

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, len(distinct), 256):
                batch = tokenizer(distinct[start : start + 256], padding=True, return_tensors="pt")
                model(**batch)

    layers: dict[str, list[int]] = {}
    for i, (layer, _) in enumerate(references):
        layers.setdefault(layer, []).append(i)
    source, target = [], []
    for number, members in enumerate(layers.values()):
        drawn = statistics.derangements(len(members), 20, (0, number))
        source += [members[i] for _ in range(20) for i in range(len(members))]
        target += np.array(members)[drawn].ravel().tolist()
    with torch.inference_mode():
        model(**tokenizer(distinct[:256], padding=True, return_tensors="pt"))  # warm up
    print(f"\nNeural metrics, {len(distinct):,} distinct texts, model of the offline extra")
    # the machine's speed drifts, so the bare pass is timed before and after, and averaged
    metric = metrics.get("bertscore@all-MiniLM-L6-v2")
    _ = metric.rows(["warm up"], [["warm up"]])
    before = seconds(bare)
    score = seconds(lambda: metric.rows(described, sets))
    floor = seconds(lambda: metric.rows([described[i] for i in source], [sets[i] for i in target]))
    between = seconds(bare)
    embedding = metrics.get("embedding@all-MiniLM-L6-v2")
    _ = embedding.pairs(["warm up"], [["warm up"]])
    embedded = seconds(
        lambda: [
            embedding.pairs([described[i] for i in members], [sets[i] for i in members])
            for members in layers.values()
        ]
    )
    after = seconds(bare)
    chosen = random.Random(0).sample(range(len(described)), 300)
    looped = seconds(lambda: [scorer.score([described[i]], [list(sets[i])]) for i in chosen])
    pass_ = (before + between) / 2
    line("BERTScore / bare pass", score / pass_, aim="aim: at most 1.3")
    line("its floor of 20 derangements / the score", floor / score, aim="aim: at most 1")
    line("embeddings, all pairs / bare pass", embedded / ((between + after) / 2), aim="")
    line(
        "naive loop of BERTScorer over units (scaled from 300) / BERTScore",
        looped / 300 * len(described) / score,
    )
    line(
        "naive loop, score and 20 shuffles / ours",
        looped / 300 * len(described) * 21 / (score + floor),
    )


def run() -> None:
    references, predictions = texts()
    lexical(references, predictions)
    neural(references, predictions)
