"""Made-up archives in the published format, for the tests of archives and of conversion."""

import csv
import io
import zipfile

import numpy as np

K, SIDE = 3, 16


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def members(layers=None, *, images=True, annotations=True, k=K, side=SIDE, per_unit=1):
    """Return member name to bytes of an archive: layer to its number of units."""
    rng = np.random.default_rng(0)
    made, rows = {}, []
    for layer, n in (layers or {"conv1": 12, "conv2": 11}).items():
        made[f"{layer}/masks.npy"] = npy(rng.integers(0, 2, (n, k, 1, side, side), dtype=np.uint8))
        ids = rng.integers(0, 30, (n, k))
        made[f"{layer}/ids.csv"] = "".join(",".join(map(str, r)) + "\n" for r in ids).encode()
        if images:
            pixels = rng.integers(0, 256, (n, k, 3, side, side), dtype=np.uint8)
            made[f"{layer}/images.npy"] = npy(pixels)
        rows += [(layer, unit, f"red {unit} {i}") for unit in range(n) for i in range(per_unit)]
    if annotations:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("layer", "unit", "summary"), *rows])
        made["annotations.csv"] = text.getvalue().encode()
    return made


def write_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for layer in sorted({name.split("/")[0] for name in content if "/" in name}):
            archive.writestr(f"{layer}/", b"")  # shutil.make_archive writes folders too
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_folder(path, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
