"""Made-up probe data sets for tests: Broden's folders, COCO's, and pictures with label maps.

Each maker returns what is true: for every picture, by concept, where it is, at the label map's own
size.
"""

import json

import numpy as np
from PIL import Image

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")

LABELS = {
    1: ("black-c", ("color",)),
    2: ("red-c", ("color",)),
    3: ("sky", ("object",)),
    5: ("wheel", ("object", "part")),
    7: ("car", ("object",)),
    260: ("door", ("part", "object")),
    300: ("wood", ("material",)),
    301: ("street-s", ("scene",)),
    302: ("dotted", ("texture",)),
    303: ("striped", ("texture",)),
}
"""By number, from Broden's kinds: names and categories. Some numbers are left out."""

LAYERS = {
    "color": [(1, 2)],
    "object": [(3, 7), (5, 260)],
    "part": [(5, 260), (260,)],
    "material": [(300,)],
}
"""Layers of label maps, by category, and what is in each."""


def patches(generator, numbers, size):
    """Return a label map of rectangles: 0 and the numbers, int32 (height, width)."""
    found = np.zeros(size, np.int32)
    for number in (*numbers, 0, *numbers):
        top, left = (int(generator.integers(side)) for side in size)
        high, wide = (int(generator.integers(1, side + 1)) for side in size)
        found[top : top + high, left : left + wide] = number
    return found


def picture(generator, size):
    """Return noise in smooth colours, RGB."""
    low = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((size[1], size[0]), resample=2)


def save_labels(path, labels):
    """Write a label map as Broden does: red + 256 * green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.stack([labels % 256, labels // 256, np.zeros_like(labels)], axis=2)
    Image.fromarray(rgb.astype(np.uint8)).save(path)


def broden(folder, pictures=6, seed=0):
    """Write a Broden folder: pictures of 24 x 30, label maps of 12 x 15, some of other sizes."""
    generator = np.random.default_rng(seed)
    lines, truth = [",".join(("image", "split", "ih", "iw", "sh", "sw", *CATEGORIES))], []
    for i in range(pictures):
        ih, iw, sh, sw = (24, 30, 12, 15) if i % 3 else (20, 20, 20, 20)
        name = f"{'ade' if i % 2 else 'dtd'}/{i:03d}.jpg"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(generator, (ih, iw)).save(path, quality=95)
        cells, found = dict.fromkeys(CATEGORIES, ""), {}

        def mark(number, category, where, found=found):
            key = LABELS[number][0], category
            found[key] = found.get(key, False) | where

        for category, layers in LAYERS.items():
            if category == "material" and i == 1:
                continue  # not every picture has every category
            names = []
            for at, numbers in enumerate(layers):
                labels = patches(generator, numbers, (sh, sw))
                names.append(f"{name[:-4]}_{category}{at}.png")
                save_labels(folder / "images" / names[-1], labels)
                for number in np.unique(labels[labels > 0]):
                    mark(int(number), category, labels == number)
            cells[category] = ";".join(names)
        whole = {"scene": (301,) if i % 2 else (), "texture": (302, 303)[: i % 3]}
        for category, numbers in whole.items():
            cells[category] = ";".join(map(str, numbers))
            for number in numbers:
                mark(number, category, np.ones((sh, sw), bool))
        lines.append(
            ",".join(map(str, (name, "val" if i % 5 == 4 else "train", ih, iw, sh, sw,
                               *cells.values())))
        )  # fmt: skip
        truth.append(found)
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    rows = ["number,name,category,frequency,coverage,syns"]
    for number, (name, categories) in LABELS.items():
        listed = ";".join(f"{each}({10 + at})" for at, each in enumerate(categories))
        rows.append(f"{number},{name},{listed},10,0.5,{name};{name} of a kind")
    (folder / "label.csv").write_text("\n".join(rows) + "\n")
    rows = ["name,first,last,count,frequency"]
    for category in CATEGORIES:
        own = [number for number, (_, listed) in LABELS.items() if category in listed]
        rows.append(f"{category},{own[0]},{own[-1]},{len(own)},{10 * len(own)}")
        codes = [f"{at},{n},{LABELS[n][0]},10,0.5" for at, n in enumerate(own, start=1)]
        dense = "\n".join(["code,number,name,frequency,coverage", *codes])
        (folder / f"c_{category}.csv").write_text(dense + "\n")
    (folder / "category.csv").write_text("\n".join(rows) + "\n")
    return truth


SHAPES = {18: "dog", 3: "car", 44: "bottle"}
"""COCO's categories by id, out of order and with gaps."""


def coco(folder, pictures=4, seed=0, split="val2017"):
    """Write a COCO folder: rectangles, one crowd in run lengths; the last picture has nothing."""
    generator = np.random.default_rng(seed)
    images, annotations, truth = [], [], []
    (folder / split).mkdir(parents=True)
    for i in range(pictures):
        size, name, found = (20 + i, 30), f"{i + 1:012d}.jpg", {}
        picture(generator, size).save(folder / split / name)
        images.append({"id": i + 1, "file_name": name, "height": size[0], "width": size[1]})
        for category in (18, 44, 18, 3)[: 0 if i == pictures - 1 else 4]:
            top, left = int(generator.integers(12)), int(generator.integers(20))
            high, wide = int(generator.integers(2, 9)), int(generator.integers(2, 11))
            mask = np.zeros(size, bool)
            mask[top : top + high, left : left + wide] = True
            bottom, right = top + high, left + wide
            outline = [[left, top, right, top, right, bottom, left, bottom]]
            crowd = category == 3
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": category,
                    "iscrowd": int(crowd),
                    "segmentation": run_lengths(mask) if crowd else outline,
                }
            )
            key = SHAPES[category], "object"
            found[key] = found.get(key, False) | mask
        truth.append(found)
    categories = [
        {"id": number, "name": name, "supercategory": "thing"} for number, name in SHAPES.items()
    ]
    write_coco(folder, split, images, annotations, categories)
    return truth


def write_coco(folder, split, images, annotations, categories):
    """Write the JSON, its lists not in order of ids."""
    (folder / "annotations").mkdir(exist_ok=True)
    data = {"images": images[::-1], "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))


def run_lengths(mask):
    """Return a mask in COCO's uncompressed run lengths: column by column, zeros first."""
    values = mask.T.ravel()
    ends = np.flatnonzero(np.diff(values)) + 1
    counts = np.diff([0, *ends, len(values)]).tolist()
    return {"counts": [0, *counts] if values[0] else counts, "size": list(mask.shape)}


NAMES = {1: ("cat", "object"), 2: ("tail", "part"), 300: ("grass", "object")}


def segments(folder, pictures=4, seed=0):
    """Write pictures with a label map each: palette, grey, 16 bits and red + 256 * green."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    truth = []
    for i in range(pictures):
        size, kind = (16, 20 + i), i % 4
        picture(generator, size).save(folder / "images" / f"{i}.{'jpg' if i % 2 else 'png'}")
        # the second label map is smaller than its picture
        labels = patches(
            generator, (1, 2) if kind < 2 else (1, 2, 300), (8, 10) if i == 1 else size
        )
        path = folder / "labels" / f"{i}.png"
        if kind == 0:
            indexed = Image.fromarray(labels.astype(np.uint8))
            indexed.putpalette([200, 10, 10, 0, 90, 200, 30, 30, 30])
            assert indexed.mode == "P"
            indexed.save(path)
        elif kind == 3:
            save_labels(path, labels)
        else:
            Image.fromarray(labels.astype(np.uint8 if kind == 1 else np.uint16)).save(path)
        truth.append({NAMES[n]: labels == n for n in NAMES if (labels == n).any()})
    rows = [f"{number},{name},{category}" for number, (name, category) in NAMES.items()]
    (folder / "labels.csv").write_text("\n".join(["number,name,category", *rows]) + "\n")
    return truth
