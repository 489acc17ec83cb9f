"""The report driven in a real browser, from disk."""

import re
from pathlib import Path

import numpy as np
import pytest
from pages import Watched

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.frames import FrameFolder, read_label
from nyuseg.ensembling.stored import StoredGrids
from nyuseg.evaluation.metrics import confusion_matrix
from nyuseg.evaluation.oof import image_confusions
from nyuseg.experiment.folder import Experiment, open_experiment

pytestmark = pytest.mark.slow


def experiment(work: Path, name: str = "one") -> Experiment:
    return open_experiment(name, work / "oof")


def cards(page) -> list[str]:
    """Ids of the shown images, in their order."""
    return page.locator("#cards b").all_text_contents()


def readout(page) -> dict[str, str]:
    terms = page.locator("#readout dt").all_text_contents()
    return dict(zip(terms, page.locator("#readout dd").all_text_contents(), strict=True))


def ready(page) -> None:
    """Wait until an image's arrays are there."""
    page.wait_for_function("viewer.frame !== null")


# The score page


def test_the_score_page_has_the_pooled_scores_and_draws_its_charts(work, watched) -> None:
    page = watched(work / "alone").open("index.html")
    text = page.inner_text("main")
    total = image_confusions(experiment(work)).sum(0)
    assert f"{np.trace(total) / total.sum():.4f}" in text
    assert "Exp060" not in text  # Not NYUv2's frames: the author's numbers do not belong here.
    count = page.locator("#charts figure").count()
    assert count >= 8
    for number in range(count):
        figure = page.locator("#charts figure").nth(number)
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
    shares = page.locator(".matrix tbody tr").nth(3).locator("td").all_inner_texts()
    expected = total[3] / total[3].sum()
    assert [float(share) for share in shares] == pytest.approx(100 * expected, abs=0.51)


def test_a_cell_of_the_confusion_matrix_leads_to_its_images(work, watched) -> None:
    page = watched(work / "alone").open("index.html")
    each, ids = image_confusions(experiment(work)), experiment(work).table["image_id"].tolist()
    off = each.sum(0) * (1 - np.eye(13, dtype=int))
    truth, guess = np.unravel_index(off.argmax(), off.shape)
    page.click(f"a[aria-label^='{CLASS_NAMES[truth]} taken for {CLASS_NAMES[guess]}:']")
    page.wait_for_selector("#cards b")
    pixels = each[:, truth, guess]
    order = sorted((i for i in range(len(ids)) if pixels[i]), key=lambda i: (-pixels[i], ids[i]))
    assert cards(page) == [ids[i] for i in order] and len(order) > 0
    assert page.input_value("[name=truth]") == str(truth)
    assert f"{len(order)} of 8 images" in page.inner_text("#count")


def test_a_room_leads_to_its_images_whatever_its_name(work, watched) -> None:
    page = watched(work / "alone").open("index.html")
    table = experiment(work).table
    page.click("summary")
    rooms = page.locator("details tbody th").all_inner_texts()
    assert sorted(rooms) == sorted(set(table["scene"]))
    scores = page.locator("details tbody td:last-child").all_inner_texts()
    assert [float(score) for score in scores] == sorted(map(float, scores))
    room = next(name for name in rooms if "onerror" in name)
    page.click(f"details a >> nth={rooms.index(room)}")
    page.wait_for_selector("#cards b")
    assert set(cards(page)) == set(table["image_id"][table["scene"] == room])


# The images


def test_search_filters_and_sorting(work, watched) -> None:
    page = watched(work / "alone").open("images.html")
    found = experiment(work)
    assert len(cards(page)) == 8
    page.keyboard.press("/")
    page.keyboard.type("90000")
    assert len(cards(page)) == 8
    page.keyboard.type("3")
    assert cards(page) == ["900003"]
    page.click("button[type=reset]")
    page.wait_for_function("document.querySelectorAll('#cards b').length === 8")
    page.select_option("[name=fold]", "1")
    assert set(cards(page)) == set(found.ids(1, held_out=True))
    page.select_option("[name=fold]", "")
    page.select_option("[name=sort]", "accuracy")
    each = image_confusions(found)
    accuracy = np.trace(each, axis1=1, axis2=2) / each.sum((1, 2))
    ids = found.table["image_id"].tolist()
    assert cards(page) == [ids[i] for i in np.lexsort((ids, accuracy))]


def test_hostile_names_show_themselves_and_do_nothing(work, watched) -> None:
    page = watched(work / "both").open("images.html")
    room = next(scene for scene in experiment(work).table["scene"] if "onerror" in scene)
    page.select_option("[name=scene]", label=room)
    assert set(cards(page)) == {"900005", "900006"}
    page.click("#cards button >> nth=0")
    ready(page)
    assert room in page.inner_text("#viewer-title")
    assert page.locator("img[src=x]").count() == 0


def test_the_pixel_under_the_pointer_is_what_lies_on_disk(work, watched) -> None:
    one = experiment(work)
    frame = FrameFolder(work / "data", "train").read("900002", ("depth", "label"))
    mask = read_label(one.mask_path("900002"))
    grid = StoredGrids([one]).read("900002", (96, 128))[0].numpy()
    page = watched(work / "alone").open("images.html", "#id=900002")
    ready(page)
    box = page.locator("#stage").bounding_box()
    for y, x in ((0, 0), (95, 127), (45, 70), (17, 101)):
        page.mouse.move(
            box["x"] + (x + 0.5) * box["width"] / 128, box["y"] + (y + 0.5) * box["height"] / 96
        )
        told = readout(page)
        assert told["row, column"] == f"{y}, {x}"
        label = frame["label"][y, x]
        assert told["truth"] == ("void" if label == 255 else CLASS_NAMES[label])
        assert told["prediction"] == CLASS_NAMES[mask[y, x]]
        # 96x128 in 64x96 is 64x85.3, of which 84 are used: 16x21 cells.
        row, column = y * 16 // 96, x * 21 // 128
        cell = grid[:, row, column]
        for text in told["probabilities"].split(", "):
            name, percent = re.fullmatch(r"(\w+) (\d+) %", text).groups()
            assert int(percent) == pytest.approx(100 * cell[CLASS_NAMES.index(name)], abs=0.51)
        assert told["probabilities"].startswith(CLASS_NAMES[cell.argmax()])
        depth = frame["depth"][int((row + 0.5) * 6), int((column + 0.5) * 128 / 21)]
        assert told["depth"] == (f"{depth / 1000:.3f} m" if depth else "missing")


def canvas_colours(page) -> np.ndarray:
    pixels = page.evaluate(
        "() => Array.from(document.getElementById('overlay').getContext('2d')"
        ".getImageData(0, 0, 128, 96).data)"
    )
    return np.array(pixels, np.uint8).reshape(96, 128, 4)


def test_layers_opacity_and_neighbours_by_keyboard(work, watched) -> None:
    page = watched(work / "alone").open("images.html", "#sort=id")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    ready(page)
    assert page.inner_text("#viewer-title").startswith("900002")
    one = experiment(work)
    label = FrameFolder(work / "data", "train").read("900002", ("label",))["label"]
    mask = read_label(one.mask_path("900002"))
    palette = np.array(page.evaluate("REPORT.palette"))
    page.keyboard.press("3")
    seen = canvas_colours(page)
    np.testing.assert_array_equal(seen[label != 255][:, :3], palette[label[label != 255]])
    page.keyboard.press("4")
    np.testing.assert_array_equal(canvas_colours(page)[..., :3], palette[mask])
    page.keyboard.press("5")
    wrong = (canvas_colours(page)[..., :3] == [213, 0, 110]).all(-1)
    np.testing.assert_array_equal(wrong, (label != mask) & (label != 255))
    page.keyboard.press("1")
    assert (canvas_colours(page)[..., 3] == 0).all()
    page.locator("#opacity").fill("20")
    assert page.locator("#overlay").evaluate("one => one.style.opacity") == "0.2"
    page.keyboard.press("Escape")
    page.locator("#cards button").nth(1).click()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "document.getElementById('viewer-title').textContent.startsWith('900003')"
    )
    ready(page)
    page.keyboard.press("Shift+ArrowDown")
    assert readout(page)["row, column"].startswith("56, ")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def test_a_link_shows_the_same_view(work, watched) -> None:
    page = watched(work / "both").open("images.html")
    page.select_option("[name=of]", "1")
    page.select_option("[name=sort]", "gain")
    first = cards(page)
    page.locator("#cards button").nth(2).click()
    ready(page)
    page.keyboard.press("6")
    page.locator("#opacity").fill("35")
    other: Watched = watched(work / "both")
    again = other.open("images.html", page.url[page.url.index("#") :])
    ready(again)
    assert cards(again) == first and again.url == page.url
    assert again.inner_text("#viewer-title") == page.inner_text("#viewer-title")
    assert again.locator("#layers [aria-pressed=true]").inner_text() == "6 Confidence"
    assert again.input_value("#opacity") == "35"


def test_two_experiments_are_sorted_by_who_is_better_where(work, watched) -> None:
    page = watched(work / "both").open("images.html", "#sort=differing")
    ids = experiment(work).table["image_id"].tolist()
    masks = [
        [read_label(experiment(work, name).mask_path(i)) for i in ids] for name in ("one", "two")
    ]
    share = np.array([(a != b).mean() for a, b in zip(*masks, strict=True)])
    assert cards(page) == [ids[i] for i in np.lexsort((ids, -share))]
    page.select_option("[name=of]", "1")
    page.locator("#cards button").nth(0).click()
    ready(page)
    page.keyboard.press("4")
    palette = np.array(page.evaluate("REPORT.palette"))
    chosen = int(np.lexsort((ids, -share))[0])
    np.testing.assert_array_equal(canvas_colours(page)[..., :3], palette[masks[1][chosen]])


# How it looks


# WCAG 2.2's contrast of each visible text to what lies behind it; half-transparent colours mixed.
CONTRAST = """() => {
  const parts = (text) => {
    const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a ?? 1];
  };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const mix = (over, under) => under.map((v, k) => over[k] * over[3] + v * (1 - over[3]));
  const back = (element) => {
    if (!element) return parts(getComputedStyle(document.body).backgroundColor).slice(0, 3);
    const own = parts(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : mix(own, back(element.parentElement));
  };
  const found = {};
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || one.closest("svg, noscript, .skip") || !one.checkVisibility()) continue;
    const behind = back(one);
    const ink = mix(parts(getComputedStyle(one).color), behind);
    const [a, b] = [light(ink), light(behind)].sort((x, y) => y - x);
    const name = `${one.tagName} ${one.className} ${one.ariaLabel} ${one.textContent.slice(0, 20)}`;
    found[name] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", ["index.html", "images.html"])
def test_it_is_legible_and_fits(work, watched, name, width, scheme) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    page = watched(work / "both", **options).open(name)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", back))) < 200
    assert dark == (scheme == "dark")
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 20
    assert {text: ratio for text, ratio in contrasts.items() if ratio < 4.5} == {}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if name == "images.html":
        page.locator("#cards button").nth(0).click()
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#viewer").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.locator("#viewer").evaluate("one => one.scrollWidth - one.clientWidth") <= 0
        assert {text: ratio for text, ratio in page.evaluate(CONTRAST).items() if ratio < 4.5} == {}


def test_the_button_changes_the_theme_of_all_pages(work, watched) -> None:
    one = watched(work / "alone", color_scheme="light")
    page = one.open("images.html")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page = one.open("index.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_every_control_has_a_name(work, watched) -> None:
    page = watched(work / "both").open("images.html", "#id=900001")
    ready(page)
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, input, select, [role=img]')].filter((one) =>"
        " !(one.textContent.trim() || one.ariaLabel || one.labels?.length))"
        ".map((one) => one.outerHTML)"
    )
    assert nameless == []


def test_the_parts_add_up_to_the_pooled_confusion_matrix(work) -> None:
    from nyuseg.report.gather import Gatherer, Measures

    total = Measures()
    for seen in Gatherer([experiment(work)], work / "again").run():
        total.add(seen.measures[0])
    pooled = image_confusions(experiment(work)).sum(0)
    assert pooled.sum() and len(total.parts) == 3
    for counts in total.parts.values():
        np.testing.assert_array_equal(counts.sum(0), pooled)
    label = FrameFolder(work / "data", "train").read("900001", ("label",))["label"]
    assert confusion_matrix(label, label).sum() == (label != 255).sum()
