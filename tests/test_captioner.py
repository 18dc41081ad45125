"""Captioner, against a scripted local server with OpenAI's chat completions API, and
against tiny real models of transformers."""

import base64
import http.server
import io
import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import vlms
from PIL import Image

import baselines
from baselines import Description, captioner
from baselines.captioner import PROMPTS, UnitCost
from baselines.framework.resume import DescriptionLog
from baselines.framework.units import encoded_exemplars, unit_keys
from baselines.shared import openai_client
from baselines.shared.answer_cache import AnswerCache
from baselines.shared.answer_cleaning import clean_answer, rejection_reason
from baselines.shared.prompt_images import (
    BLANK_COLOR,
    blank_images,
    dim_outside,
    draw_crop,
    draw_grid,
)
from baselines.shared.vision_language import Answer
from milannotations import InputError, Unit, schema
from milannotations.editions.writing import write_config
from milannotations.utils import http as http_requests

K, SIDE = 4, 48
FAILED, ABSTAINED = Description.failed(), Description.abstained()


# a server ---------------------------------------------------------------------------------


def completion(text, **more):
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 5},
        **more,
    }


class Server:
    """Server that answers as in `script`, one step per request, and then with `text`.

    A step is a status; (status, headers, body); ("slow", seconds); ("close", bytes of the body);
    bytes, sent as they are; an object, sent as JSON; or a function of the request's JSON.
    """

    def __init__(self):
        self.script, self.text, self.asked, self.headers, self.paths = [], "red cars", [], [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                outer.answer(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        step = self.script.pop(0) if self.script else self.text
        status, headers, cut = 200, {}, None
        if request.path != "/v1/chat/completions":
            step = 404
        if callable(step):
            step = step(body)
        if isinstance(step, int):
            status, step = step, {"error": {"message": f"no luck ({step})"}}
        elif isinstance(step, tuple) and step[0] == "slow":
            time.sleep(step[1])
            step = self.text
        elif isinstance(step, tuple) and step[0] == "close":
            step, cut = completion("x" * 10_000), step[1]
        elif isinstance(step, tuple):
            status, headers, step = step
        if isinstance(step, str):
            step = completion(step)
        content = step if isinstance(step, bytes) else json.dumps(step).encode()
        try:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content if cut is None else content[:cut])
        except OSError:
            pass
        request.close_connection = True


@pytest.fixture
def server():
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Record the pauses between attempts without waiting, with no key in the environment."""
    taken = []
    monkeypatch.setattr(http_requests, "_pause", taken.append)
    for name in openai_client.KEYS:
        monkeypatch.delenv(name, raising=False)
    return taken


# units ------------------------------------------------------------------------------------


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def a_unit(unit, *, regions=K, pictures=True):
    draw = np.random.default_rng(unit)
    masks = np.zeros((K, SIDE, SIDE), dtype=bool)
    masks[:regions, 10:20, 4 + unit : 16 + unit] = True
    images = draw.integers(100, 256, (K, SIDE, SIDE, 3), dtype=np.uint8)
    return schema.row(
        Unit("tiny", "a", unit),
        images=[encoded(image) for image in images] if pictures else None,
        masks=[encoded(mask) for mask in masks] if pictures else None,
        source_ids=[f"{unit}-{i}" for i in range(K)] if pictures else None,
        activations=[4.0, 3.0, 2.0, 1.0] if pictures else None,
        threshold=0.5 if pictures else None,
        unit_kind="neuron",
        polarity="+",
    )


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editions") / "tiny"
    rows = [a_unit(0), a_unit(1, regions=2), a_unit(2, regions=0), a_unit(3)]
    write_config(folder, "tiny", {"test": rows})
    return folder


@pytest.fixture(scope="module")
def units(edition):
    return baselines.open_units(edition)


@pytest.fixture
def one(units):
    return units.select([0])


def asking(server, **options):
    return baselines.get(
        "captioner", url=server.url, model="a-model", side=32, **{"parallel": 1, **options}
    )


def said(method, units):
    return [answer.text for answer in baselines.run(method, units)]


def shown(request):
    """Return the images and the text of a request."""
    (message,) = request["messages"][:1]
    *pictures, text = message["content"]
    made = []
    for part in pictures:
        assert part["type"] == "image_url"
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        made.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    return made, text["text"]


# images of the prompt ----------------------------------------------------------------------------


def test_one_grid_of_the_exemplars_that_have_a_region(server, units):
    method = asking(server, outline=False)
    answers = baselines.run(method, units)
    assert answers == [Description.of("red cars")] * 2 + [ABSTAINED, Description.of("red cars")]
    assert len(server.asked) == 3
    (picture,), text = shown(server.asked[0])
    assert picture.shape == (32 + 2 * 2, 4 * (32 + 2) + 2, 3)
    assert text == PROMPTS["grid"].replace("{n}", "4")
    (picture,), text = shown(server.asked[1])
    assert picture.shape == (32 + 2 * 2, 2 * (32 + 2) + 2, 3)
    assert "grid of 2 pictures" in text
    assert method.costs[unit_keys(units)[2]] == UnitCost("no region")


def test_a_image_for_each_region(server, units):
    baselines.run(asking(server, show="crops"), units)
    assert [len(shown(request)[0]) for request in server.asked] == [4, 2, 4]
    assert all(max(picture.shape[:2]) == 32 for picture in shown(server.asked[0])[0])


def test_only_the_strongest(server, one):
    baselines.run(asking(server, show="crops", exemplars=2), one)
    assert len(shown(server.asked[0])[0]) == 2


def test_the_region_is_bright_and_the_rest_at_a_quarter():
    image = Image.new("RGB", (40, 20), (200, 100, 40))
    region = np.zeros((20, 40), dtype=bool)
    region[4:8, 10:20] = True
    pixels = np.asarray(dim_outside(image, region, 80, outline=False))
    assert pixels.shape == (40, 80, 3)
    assert (pixels[8:16, 20:40] == (200, 100, 40)).all()
    pixels = pixels.copy()
    pixels[8:16, 20:40] = (50, 25, 10)
    assert (pixels == (50, 25, 10)).all()


def test_an_outline_is_outside_the_region_and_thin():
    image = Image.new("RGB", (32, 32))
    region = np.zeros((32, 32), dtype=bool)
    region[10:20, 10:20] = True
    pixels = np.asarray(dim_outside(image, region, 32))
    assert int((pixels.sum(-1) > 0).sum()) == 12 * 12 - 10 * 10
    assert not pixels[10:20, 10:20].any()


@pytest.mark.parametrize("size", [1, 3, 400])
def test_no_region_is_lost_when_a_image_is_made_smaller(size):
    image, region = Image.new("RGB", (400, 400), (255,) * 3), np.zeros((400, 400), dtype=bool)
    region[100 : 100 + size, 200 : 200 + size] = True
    assert (np.asarray(dim_outside(image, region, 20, outline=False)) == 255).any()


def test_a_crop_holds_its_region_with_a_margin():
    image = Image.new("RGB", (100, 100), (200,) * 3)
    region = np.zeros((100, 100), dtype=bool)
    region[50:90, 0:40] = True
    crop = np.asarray(draw_crop(image, region, 112, outline=False))[..., 0]
    # rows 42 to 98, columns 0 to 48
    assert crop.shape == (112, 96)
    assert int((crop == 200).sum()) == (2 * 40) ** 2
    region[:] = False
    region[0, 99] = True  # a corner: at least a quarter of the picture
    crop = np.asarray(draw_crop(image, region, 50, outline=False))[..., 0]
    assert 0 < (crop == 200).mean() < 0.05


def test_images_that_are_no_squares_and_wrong_masks():
    image, region = Image.new("RGB", (60, 30), (255,) * 3), np.ones((30, 60), dtype=bool)
    sheet = np.asarray(draw_grid([(image, region)] * 7, 28))
    assert sheet.shape == (2 * 30 + 2, 5 * 30 + 2, 3)
    for make in (dim_outside, draw_crop):
        with pytest.raises(InputError, match="a mask of"):
            make(image, region.T, 28)


def test_blank_images_in_place_of_the_exemplars(server, units):
    for show, distinct in (("grid", 2), ("crops", 2)):
        server.asked.clear()
        method = asking(server, show=show, blank=True)
        answers = baselines.run(method, units)
        assert answers[2] == ABSTAINED  # it is what it was: the control changes what is seen alone
        for request in server.asked:
            assert all((picture == BLANK_COLOR).all() for picture in shown(request)[0])
        assert len(server.asked) == distinct  # equal questions are asked once


def test_the_prompt_is_mine(server, one):
    baselines.run(asking(server, prompt="Was zeigen die {n} Bilder? ü"), one)
    assert shown(server.asked[0])[1] == "Was zeigen die 4 Bilder? ü"


def test_outlines_are_explained_where_there_are_any(server, one):
    baselines.run(asking(server), one)
    assert shown(server.asked[0])[1].endswith(captioner.OUTLINE_PROMPT)


def test_an_edition_of_text_alone(server, tmp_path):
    write_config(tmp_path / "text", "text", {"test": [a_unit(0, pictures=False)]})
    with pytest.raises(InputError, match=r"tiny/a/0 has none: this edition holds text only"):
        baselines.describe(tmp_path / "text", asking(server))
    assert server.asked == []


# descriptions -----------------------------------------------------------------------------


def test_requests_are_as_the_protocol_has_them(server, one):
    method = asking(server, max_tokens=20)
    baselines.run(method, one)
    (request,) = server.asked
    assert server.paths == ["/v1/chat/completions"]
    assert request["model"] == "a-model"
    assert (request["temperature"], request["max_tokens"]) == (0, 20)
    assert "Authorization" not in server.headers[0]
    usage = method.costs[Unit("tiny", "a", 0)]
    assert (usage.outcome, usage.tokens_in, usage.tokens_out, usage.cached) == ("ok", 700, 5, False)
    assert 0 < usage.seconds < 5


def test_fields_of_the_request_are_changed(server, one):
    baselines.run(asking(server, body={"max_tokens": None, "max_completion_tokens": 9}), one)
    assert server.asked[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.asked[0]


@pytest.mark.parametrize("text", ["röda bilar", "红色的汽车", "سيارات حمراء", "🚗 red cars"])
def test_unicode(server, one, tmp_path, text):
    server.text = text
    assert said(asking(server, cache=str(tmp_path)), one) == [text]
    assert said(asking(server, cache=str(tmp_path)), one) == [text]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  Red\n cars. ", "Red cars"),
        ('"Red cars"', "Red cars"),
        ("**Description:** Red cars", "Red cars"),
        ("Answer: 'red cars'", "red cars"),
        ("<think>Cars? Red.</think>\nred cars", "red cars"),
        ("U.S. flags.", "U.S. flags."),
        ("the letter 'a'", "the letter 'a'"),
        ("\u201cred\x00cars\u201d\u3002", "red cars"),
        ("red \ud83d cars", "red cars"),
    ],
)
def test_what_stands_around_an_answer_is_taken_off(server, one, text, clean):
    assert clean_answer(text) == clean
    assert rejection_reason(clean, 30) == ""
    server.text = text
    assert said(asking(server), one) == [clean]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("I'm sorry, but I can't assist with that.", "refused"),
        ("I\u2019m sorry, I cannot help with this request.", "refused"),
        ("Sorry, I can't see the image.", "refused"),
        ("As an AI language model, I do not see pictures", "refused"),
        ("Unfortunately the picture is too dark", "refused"),
        ("I cannot identify people in pictures", "refused"),
        ("I am unable to view images.", "refused"),
        ("Please upload the image.", "refused"),
        ("No image provided", "refused"),
        ("", "no text"),
        (None, "no text"),
        ("...", "no text"),
        ("\u2026 ?! \u3002", "no text"),
        ("<think>what could it be", "no text"),
        (" ".join(["red"] * 31), "too long"),
        ('{"error": {"message": "overloaded"}}', "not a text"),
        ('["red"]', "not a text"),
        ("<html>busy</html>", "not a text"),
    ],
)
def test_refusals_and_nonsense_are_failures(server, one, tmp_path, text, outcome):
    server.script = [completion(text)] * 5
    method = asking(server, cache=str(tmp_path))
    assert baselines.run(method, one) == [FAILED]
    usage = method.costs[Unit("tiny", "a", 0)]
    assert (usage.outcome, usage.tokens_in) == (outcome, 700)
    assert len(server.asked) == 1
    # it is the model's answer: it is not asked again
    assert baselines.run(asking(server, cache=str(tmp_path)), one) == [FAILED]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "text", ["sorry signs", "no entry signs", "i letters", "people who can't see", "AI logos"]
)
def test_descriptions_that_sound_like_refusals(text):
    assert rejection_reason(clean_answer(text), 30) == ""


def test_refusals_as_the_protocol_says_them(server, units):
    refusal = completion(None)
    refusal["choices"][0]["message"]["refusal"] = "I can't."
    filtered = completion("red")
    filtered["choices"][0]["finish_reason"] = "content_filter"
    error = (400, {}, {"error": {"code": "content_filter", "message": "The prompt is filtered."}})
    server.script = [refusal, filtered, error]
    method = asking(server)
    assert baselines.run(method, units) == [FAILED, FAILED, ABSTAINED, FAILED]
    assert [u.outcome for u in method.costs.values()].count("refused") == 3


def test_an_answer_in_parts(server, one):
    server.script = [completion([{"type": "text", "text": "red "}, {"text": "cars"}, 3])]
    assert said(asking(server), one) == ["red cars"]


# servers that misbehave -------------------------------------------------------------------


def test_500_twice_then_good(server, one, pauses):
    server.script = [500, 503]
    assert said(asking(server), one) == ["red cars"]
    assert pauses == [1, 2]


def test_a_slow_answer_is_asked_for_again(server, one, pauses):
    server.script = [("slow", 1.0)]
    assert said(asking(server, timeout=0.2), one) == ["red cars"]
    assert len(server.asked) == 2
    assert pauses == [1]


def test_a_connection_closed_half_way(server, one, pauses):
    server.script = [("close", 0), ("close", 500)]
    assert said(asking(server), one) == ["red cars"]
    assert pauses == [1, 2]


def test_rate_limits_are_honoured(server, one, pauses):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    limited = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
    server.script = [(429, {"Retry-After": after}, limited) for after in ("17", soon, "inf", "0.5")]
    assert said(asking(server), one) == ["red cars"]
    assert pauses[0] == 17
    assert 90 < pauses[1] <= 100
    assert pauses[2:] == [4, 0.5]


def test_a_server_that_wants_hours_or_money_is_left_alone(server, one, pauses):
    server.script = [(429, {"Retry-After": "7200"}, {})]
    with pytest.raises(InputError, match="left alone for 7,200 s"):
        baselines.run(asking(server), one)
    broke = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.script = [(429, {}, broke)]
    with pytest.raises(InputError, match="You exceeded your quota"):
        baselines.run(asking(server), one)
    assert pauses == []


def test_given_up_after_so_many_attempts(server, one, pauses):
    server.script = [500] * 9
    with pytest.raises(InputError, match=r"no answer in 4 attempts \(status 500: no luck"):
        baselines.run(asking(server, attempts=4), one)
    assert pauses == [1, 2, 4]
    assert len(server.asked) == 4


def test_no_server_at_all(one, pauses):
    method = captioner.create(model="m", url="http://127.0.0.1:9/v1", attempts=2)
    with pytest.raises(InputError, match=r"2 attempts.*refused.*Is it running"):
        baselines.run(method, one)


MALFORMED = [
    b'{"choices": [{"mess',
    b"",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    {},
    [],
    {"choices": []},
    {"choices": [{}]},
    {"choices": [{"message": "red"}]},
    {"choices": None},
    {"error": {"message": "overloaded"}},
    {"error": "overloaded"},
]


@pytest.mark.parametrize("step", MALFORMED)
def test_what_is_no_chat_completion_is_a_failure_and_not_kept(server, one, tmp_path, step):
    server.script = [step]
    assert said(asking(server), one) == ["red cars"]  # it passed
    server.script = [step] * openai_client.MAX_MALFORMED
    method = asking(server, cache=str(tmp_path))
    assert baselines.run(method, one) == [FAILED]
    assert method.costs[Unit("tiny", "a", 0)].outcome == "malformed"
    assert list(tmp_path.iterdir()) == []
    assert said(method, one) == ["red cars"]


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": "many"}])
def test_tokens_that_are_not_told_are_unknown(server, one, usage):
    server.script = [completion("red", usage=usage)]
    method = asking(server)
    baselines.run(method, one)
    assert method.costs[Unit("tiny", "a", 0)].tokens_in is None


def test_a_wrong_address(server, one, pauses):
    base = server.url.removesuffix("/v1")
    for url in (base, base + "/v2"):
        with pytest.raises(InputError, match=r"status 404: no luck.*'m'.*ends before"):
            baselines.run(captioner.create(model="m", url=url), one)
    server.script = [b" <!doctype html><title>Welcome</title>"]
    with pytest.raises(InputError, match=r"answers with a web page.*/v1"):
        baselines.run(asking(server), one)
    server.script = [(302, {"Location": "http://127.0.0.1:9/"}, {})]
    with pytest.raises(InputError, match="status 302"):
        baselines.run(asking(server), one)
    assert pauses == []


def test_what_comes_after_an_address_is_taken_off(server, one):
    for url in (server.url + "/", server.url + "/chat/completions"):
        assert said(captioner.create(model="m", url=url), one) == ["red cars"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://", "http://a:b/v1", "x"])
def test_what_is_no_address(url):
    with pytest.raises(InputError, match="no http or https address"):
        captioner.create(model="m", url=url)


def test_a_request_that_is_refused_says_why(server, one, pauses):
    server.script = [(400, {}, {"error": {"message": "max_tokens is not supported"}})]
    with pytest.raises(InputError, match=r"max_tokens is not supported.*body="):
        baselines.run(asking(server), one)
    server.script = [(422, {}, b"what?")]
    with pytest.raises(InputError, match="status 422"):
        baselines.run(asking(server), one)
    server.script = [401]
    with pytest.raises(InputError, match=r"No key was sent; .* MILAN_API_KEY"):
        baselines.run(asking(server), one)
    assert pauses == []


def test_an_interrupted_run_resumes(server, units, tmp_path):
    server.script = ["red", 400]
    with pytest.raises(InputError):
        baselines.run(asking(server, cache=str(tmp_path)), units)
    server.text = "blue"
    made = said(asking(server, cache=str(tmp_path)), units)
    assert made == ["red", "blue", None, "blue"]
    assert len(server.asked) == 4


# the key ----------------------------------------------------------------------------------

KEY = "sk-secret/0123456789"


def test_the_key_is_sent_and_kept_nowhere(server, edition, one, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MILAN_API_KEY", f" {KEY}\n")
    cache, target = tmp_path / "cache", tmp_path / "said.csv"
    echo = f"Incorrect API key provided: {KEY}"
    server.script = [
        (500, {"X-Key": KEY}, {"error": {"message": echo}}),
        {"error": echo},
        f"a sign {KEY} in red",
    ]
    method = asking(server, cache=str(cache))
    log = DescriptionLog(target)
    kept = baselines.describe(edition, method, log=log)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    seen = [repr(kept), repr(method), repr(vars(method.model)), caplog.text]
    seen += [log.path.read_text(), *(path.read_text() for path in cache.iterdir())]
    assert kept[0][1].text == "a sign *** in red"
    for step in (
        (401, {}, {"error": {"message": echo}}),
        (400, {}, {"detail": echo, "message": echo}),
        (429, {"Retry-After": "9999"}, {"error": echo}),
    ):
        server.script = [step]
        with pytest.raises(InputError) as caught:
            baselines.run(asking(server), one)
        seen.append("".join(traceback.format_exception(caught.value)))
    assert "The key in MILAN_API_KEY was sent" in seen[-3]
    assert "***" in seen[-3]
    server.script = [(500, {}, {"error": {"message": echo}})] * 2
    with pytest.raises(InputError) as caught:
        baselines.run(asking(server, attempts=2), one)
    seen += ["".join(traceback.format_exception(caught.value)), caplog.text]
    assert all("secret" not in text for text in seen)
    assert any(cache.iterdir())


def test_which_key(server, one, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    baselines.run(asking(server), one)
    monkeypatch.setenv("MILAN_API_KEY", "first")
    baselines.run(asking(server), one)
    sent = [headers["Authorization"] for headers in server.headers]
    assert sent == ["Bearer second", "Bearer first"]


def test_a_netrc_file_does_not_replace_the_key(server, one, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MILAN_API_KEY", "mine")
    baselines.run(asking(server), one)
    assert server.headers[0]["Authorization"] == "Bearer mine"


@pytest.mark.parametrize("key", ["sk-secret\nx", "sk-secret ключ", "sk secret"])
def test_a_damaged_key_is_not_shown(server, one, monkeypatch, key):
    monkeypatch.setenv("MILAN_API_KEY", key)
    with pytest.raises(InputError, match="MILAN_API_KEY holds") as caught:
        baselines.run(asking(server), one)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["http://me:secret@a/v1", "http://me:secret@a:b/", "http://a/v1?key=secret", "a?secret"]
)
def test_a_key_in_the_address_is_refused_and_not_shown(url):
    with pytest.raises(InputError, match="MILAN_API_KEY") as caught:
        captioner.create(model="m", url=url)
    assert "secret" not in str(caught.value)


# the cache --------------------------------------------------------------------------------


def test_a_second_run_asks_nothing(server, units, tmp_path):
    first, second = (asking(server, cache=str(tmp_path / "c")) for _ in range(2))
    answers = baselines.run(first, units)
    server.text = "something else"
    assert baselines.run(second, units) == answers
    assert len(server.asked) == 3
    for unit, usage in second.costs.items():
        assert usage.cached == (usage.outcome != "no region")
        before = first.costs[unit]
        assert (usage.seconds, usage.tokens_in) == (before.seconds, before.tokens_in)


def test_whatever_an_answer_depends_on_is_asked_anew(server, one, tmp_path):
    options = [
        {},
        {"prompt": "What?"},
        {"max_tokens": 9},
        {"show": "crops"},
        {"outline": False},
        {"exemplars": 2},
        {"blank": True},
        {"body": {"top_p": 0.5}},
    ]
    for count, more in enumerate(options, 1):
        for _ in range(2):
            baselines.run(asking(server, cache=str(tmp_path), **more), one)
        assert len(server.asked) == count
    baselines.run(captioner.create(model="b", url=server.url, side=32, cache=str(tmp_path)), one)
    assert len(server.asked) == count + 1
    # and what it does not depend on is not
    baselines.run(asking(server, cache=str(tmp_path), timeout=5, attempts=2, max_words=9), one)
    assert len(server.asked) == count + 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"asked": 1}', b"\xff"])
def test_a_damaged_file_is_made_anew(server, one, tmp_path, damage):
    baselines.run(asking(server, cache=str(tmp_path)), one)
    (path,) = tmp_path.iterdir()
    whole = json.loads(path.read_text())
    path.write_bytes(damage)
    assert said(asking(server, cache=str(tmp_path)), one) == ["red cars"]
    assert len(server.asked) == 2
    assert json.loads(path.read_text())["asked"] == whole["asked"]


def test_equal_questions_at_one_time_are_asked_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        time.sleep(0.05)
        return _made("red")

    cache = AnswerCache(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: cache.get({"q": 1}, make), range(8)))
    assert len(calls) == 1
    assert sorted(cached for _, cached in made) == [False] + [True] * 7


def _made(text):
    one = {"text": text, "reason": ""}
    return {"said": [one], "seconds": 0.0, "tokens_in": None, "tokens_out": None}


FILL = """
import sys
from baselines.shared.answer_cache import AnswerCache
made = {"said": [{"text": "x" * 5000, "reason": ""}], "seconds": 0.0}
for number in range(40):
    AnswerCache(sys.argv[1]).get({"q": number}, lambda: {**made, "tokens_in": 1, "tokens_out": 1})
"""


def test_several_processes_share_a_folder(tmp_path):
    words = [sys.executable, "-c", FILL, str(tmp_path)]
    children = [subprocess.Popen(words) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    files = list(tmp_path.iterdir())
    assert len(files) == 40
    assert all(json.loads(path.read_text())["said"] for path in files)


def test_several_requests_at_a_time_keep_the_order(server, units):
    barrier = threading.Barrier(3, timeout=10)

    def step(body):
        barrier.wait()
        return f"{len(body['messages'][0]['content'][0]['image_url']['url'])} bytes"

    server.script = [step] * 3
    together = said(asking(server, parallel=3), units)
    barrier = threading.Barrier(1)
    server.script = [step] * 3
    assert said(asking(server, parallel=1), units) == together


def test_one_failure_of_several_stops_the_run(server, units):
    server.script = [400] * 3
    with pytest.raises(InputError, match="no luck"):
        baselines.run(asking(server, parallel=3), units)


# choosing among candidates ----------------------------------------------------------------


def _scorer(log_p, drop=False):
    """Return a step that scores the text of the last message as vLLM does, or None."""

    def step(body):
        text = body["messages"][-1]["content"]
        assert body["messages"][-1]["role"] == "assistant"
        assert body["continue_final_message"]
        assert not body["add_generation_prompt"]
        assert body["prompt_logprobs"] == 1
        blank = all((picture == BLANK_COLOR).all() for picture in shown(body)[0])
        first, *rest = text.split()
        words = [first, *(f" {word}" for word in rest)]
        told = [None, {"1": {"logprob": -9.0, "decoded_token": "assistant:"}}]
        for word in words:
            each = log_p[text][int(blank)] / len(words)
            best = {"logprob": -0.1, "rank": 1, "decoded_token": "other"}
            told.append({"7": {"logprob": each, "decoded_token": word}, "8": best})
        return completion("", **({} if drop else {"prompt_logprobs": told}))

    return step


def test_an_endpoints_candidates_are_chosen_by_mutual_information(server, one, tmp_path):
    log_p = {"a picture": (-2.0, -1.0), "red cars": (-4.0, -16.0), "some ü": (-9.0, -10.0)}
    score = _scorer(log_p)
    server.script = ["a picture", "red cars", "I'm sorry", "a picture", "some ü"]
    server.script += [score] * 8  # of four texts, each with both
    log_p["I'm sorry"] = (-0.1, -90.0)
    options = {"pmi": True, "candidates": 5, "cache": str(tmp_path)}
    method = asking(server, lam=0.5, **options)
    assert baselines.run(method, one) == [Description.of("red cars", 4.0)]
    drawn = [(body["temperature"], body.get("seed")) for body in server.asked[:5]]
    assert drawn == [(0, None), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert method.costs[Unit("tiny", "a", 0)].tokens_in == 13 * 700
    # another lambda costs nothing
    assert baselines.run(asking(server, lam=0.0, **options), one) == [
        Description.of("a picture", -2.0)
    ]
    assert len(server.asked) == 13


def test_an_endpoint_without_log_probabilities(server, one):
    with pytest.raises(InputError, match=r"gives no log-probabilities.*Leave out --set pmi=true"):
        baselines.run(asking(server, pmi=True, candidates=2), one)


def test_a_score_that_does_not_come_is_asked_for_again(server, one, tmp_path):
    score = _scorer({"red cars": (-2.0, -4.0)})
    options = {"pmi": True, "candidates": 1, "lam": 1, "cache": str(tmp_path)}
    server.script = [
        "red cars",
        score,
        *[b"{"] * openai_client.MAX_MALFORMED,
        "red cars",
        score,
        score,
    ]
    method = asking(server, **options)
    assert baselines.run(method, one) == [FAILED]
    assert method.costs[Unit("tiny", "a", 0)].outcome == "malformed"
    assert list(tmp_path.iterdir()) == []
    assert baselines.run(method, one) == [Description.of("red cars", 2.0)]


@pytest.mark.parametrize("told", [float("nan"), float("-inf"), None, "x"])
def test_scores_that_are_no_numbers(told):
    assert (
        openai_client._sum_tail([{"7": {"logprob": told, "decoded_token": " red"}}], "red") is None
    )


def test_tokens_that_do_not_spell_the_text_are_no_score(server, one):
    other = completion("", prompt_logprobs=[None, {"7": {"logprob": -1, "decoded_token": "blue"}}])
    broken = completion("", prompt_logprobs=[None, {}, 3])
    server.script = ["red", other, broken]
    method = asking(server, pmi=True, candidates=1)
    assert baselines.run(method, one) == [FAILED]
    assert method.costs[Unit("tiny", "a", 0)].outcome == "not scored"


# local models -------------------------------------------------------------------

KINDS = {
    "llava": vlms.llava,
    "llava-plain": lambda folder: vlms.llava(folder, template=False),
    "qwen": vlms.qwen,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("vlms")
    return {kind: str(make(made / kind)) for kind, make in KINDS.items()}


@pytest.fixture(params=KINDS)
def folder(request, folders):
    return folders[request.param]


def local(folder, **options):
    return baselines.get("captioner", model=folder, max_tokens=6, side=32, **options)


@pytest.mark.parametrize("options", [{}, {"show": "crops"}, {"pmi": True, "candidates": 3}])
def test_the_same_again_whatever_the_batch_and_the_order(folder, units, options):
    method = local(folder, **options)
    answers = baselines.run(method, units)
    assert [answer.status for answer in answers] == ["ok", "ok", "abstained", "ok"]
    assert len({answer.text for answer in answers}) > 1
    for batch_size in (1, 3):
        method.cache = AnswerCache(None)
        assert baselines.run(method, units, batch_size=batch_size) == answers
    method.cache = AnswerCache(None)
    assert baselines.run(method, units.select([3, 2, 1, 0])) == answers[::-1]
    assert baselines.run(method, units.select([])) == []
    usage = method.costs[unit_keys(units)[0]]
    assert usage.tokens_in > 20
    assert 0 < usage.tokens_out <= 6 * 3


def test_what_is_said_depends_on_what_is_seen(folder, units):
    seen, blank = (said(local(folder, blank=blank), units) for blank in (False, True))
    assert seen != blank
    assert blank[0] == blank[3]


def _plainly(folder, pictures, prompt, words):
    """Return log p of each word given the words before it, by one pass per word over text."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    if processor.chat_template:
        content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
    else:
        text = "<image>" * len(pictures) + "\n" + prompt
    special = not text.startswith("<s>")
    total = []
    for word in words:
        inputs = processor(
            images=pictures, text=text, return_tensors="pt", add_special_tokens=special
        )
        with torch.inference_mode():
            logits = model(**inputs).logits[0, -1].double()
        wanted = processor.tokenizer.convert_tokens_to_ids(word)
        total.append(float(logits[wanted] - torch.logsumexp(logits, 0)))
        text += f" {word}"
    return total


@pytest.mark.parametrize("show", ["grid", "crops"])
def test_forced_scores_are_those_of_a_plain_reading(folder, one, show):
    method = local(folder, show=show, exemplars=2)
    pictures, _ = method.draw_images(next(encoded_exemplars(one, "captioner"))[1])
    words = ["red", "circles", "on", "faces"]
    ids = tuple(method.model._loaded[1].tokenizer.convert_tokens_to_ids(words))
    forced, *_ = method.model.log_p(pictures, "red things", Answer("", ids=ids))
    plain = _plainly(folder, pictures, "red things", words)
    assert forced == pytest.approx(sum(plain), abs=2e-4)
    assert -60 < forced < -1
    # one word alone, and after a change of the pictures
    alone, *_ = method.model.log_p(pictures, "red things", Answer("", ids=ids[:1]))
    assert alone == pytest.approx(plain[0], abs=1e-4)
    blank, *_ = method.model.log_p(blank_images(pictures), "red things", Answer("", ids=ids))
    assert abs(blank - forced) > 1e-3


def test_forced_scores_are_those_of_generation(folder, one):
    method = local(folder)
    pictures, _ = method.draw_images(next(encoded_exemplars(one, "captioner"))[1])
    answer = method.model.write(pictures, "things?")
    model, _ = method.model._loaded
    inputs = method.model._inputs(pictures, "things?")
    made = model.generate(
        **inputs, do_sample=False, max_new_tokens=6, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    steps = [logits[0].log_softmax(-1) for logits in made.logits]
    stepwise = sum(float(step[i]) for step, i in zip(steps, answer.ids, strict=True))
    assert method.model.log_p(pictures, "things?", answer)[0] == pytest.approx(stepwise, abs=1e-4)


def test_candidates_are_distinct_and_the_best_is_said(folder, one):
    method = local(folder, pmi=True, candidates=5, lam=0.7)
    (answer,) = baselines.run(method, one)
    pictures, n = method.draw_images(next(encoded_exemplars(one, "captioner"))[1])
    prompt = method.prompt.replace("{n}", str(n))
    beams = method.model.candidates(pictures, prompt, 5)
    assert len({beam.text for beam in beams}) == 5
    scores = {}
    for beam in beams:
        given, blank = (
            method.model.log_p(looked, prompt, beam)[0]
            for looked in (pictures, blank_images(pictures))
        )
        scores[beam.text] = given - 0.7 * blank
    best = max(scores, key=scores.get)
    assert answer == Description.of(best, round(scores[best], 3))


def test_a_cache_hit_loads_no_model(folder, units, tmp_path, monkeypatch):
    options = {"pmi": True, "candidates": 2, "cache": str(tmp_path)}
    answers = baselines.run(local(folder, **options), units)

    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    import transformers

    monkeypatch.setattr(
        transformers.AutoModelForImageTextToText, "from_pretrained", refuse, raising=True
    )
    again = local(folder, **options)
    assert baselines.run(again, units) == answers
    assert all(u.cached for u in again.costs.values() if u.outcome == "ok")


def test_another_model_in_the_same_folder_is_asked_anew(units, tmp_path):
    def answers():
        return said(local(str(tmp_path / "m"), cache=str(tmp_path / "c")), units)

    vlms.llava(tmp_path / "m", seed=0)
    first = answers()
    vlms.llava(tmp_path / "m", seed=1)
    assert answers() != first
    vlms.llava(tmp_path / "m", seed=0)
    n_files = len(list((tmp_path / "c").iterdir()))
    assert answers() == first
    assert len(list((tmp_path / "c").iterdir())) == n_files


def test_an_answer_ends_where_the_model_ends_it(folders, one, monkeypatch):
    method = local(folders["llava"])
    pictures, _ = method.draw_images(next(encoded_exemplars(one, "captioner"))[1])
    free = method.model.write(pictures, "things?")
    model, _ = method.model._loaded
    end = free.ids[2]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [end, 2])
    cut = method.model.write(pictures, "things?")
    assert cut.ids == free.ids[: free.ids.index(end) + 1]
    assert cut.tokens_out == len(cut.ids)


# errors of the user -----------------------------------------------------------------


def test_without_a_model():
    for options in ({}, {"url": "http://localhost:8000/v1"}, {"model": ""}):
        with pytest.raises(InputError, match=r"--model FOLDER or NAME.*--set url=http"):
            baselines.get("captioner", **options)


def test_a_folder_that_is_no_model(one, tmp_path):
    from transformers import LlamaConfig

    (tmp_path / "empty").mkdir()
    LlamaConfig().save_pretrained(tmp_path / "text")
    broken = tmp_path / "broken"
    vlms.llava(broken)
    (broken / "model.safetensors").unlink()
    for name in ("empty", "text", "broken"):
        with pytest.raises(InputError, match="no image-text-to-text model"):
            baselines.run(local(str(tmp_path / name)), one)
    with pytest.raises(InputError, match="no image-text-to-text model"):
        baselines.run(local(str(tmp_path / "none"), cache=str(tmp_path / "cache")), one)


def test_a_model_of_two_halves_does_not_choose(folders, one, monkeypatch):
    method = local(folders["llava"], pmi=True, candidates=2)
    monkeypatch.setattr(method.model._loaded[0].config, "is_encoder_decoder", True)
    with pytest.raises(InputError, match="an encoder and a decoder"):
        baselines.run(method, one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"show": "list"}, "show is 'list'; expected one of grid, crops"),
        ({"candidates": 0}, "candidates is 0; at least 1"),
        ({"side": -3}, "side is -3"),
        ({"timeout": 0}, "timeout is 0"),
        ({"lam": float("nan")}, "lam nan"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"cache": __file__}, "is a file; the cache is a folder"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        captioner.create(model="x", **options)


def test_spec_and_listing():
    assert captioner.SPEC.requires == ("vision-language model",)
    assert captioner.SPEC in baselines.specs()
    assert Path(captioner.__file__).stem == captioner.SPEC.name
