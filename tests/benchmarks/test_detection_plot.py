from xml.etree import ElementTree

from learnchain.benchmarks.detection_plot import read_curves, svg

RESULT = {
    "challenges": 10,
    "figures": [
        {"what": "k = 2 of 20 segments: 2 forged are found", "value": 0.25, "against": "exact 0.1947"},
        {"what": "k = 2 of 20 segments: cost", "value": 0.13, "against": "k / N"},
        {"what": "k = 19 of 20 segments: 2 forged are found", "value": 1.0, "against": "exact 1.0000"},
        {"what": "k = 19 of 20 segments: cost", "value": 1.4, "against": "k / N"},
        {"what": "something else", "value": 3.0, "against": "nothing"},
    ],
}


def test_the_drawing_shows_what_was_measured_beside_what_is_expected():
    segments, found = read_curves(RESULT)
    assert segments == 20
    assert found == {"found": [(2, 0.25), (19, 1.0)], "exact": [(2, 0.1947), (19, 1.0)], "cost": [(2, 0.13), (19, 1.4)]}
    drawn = ElementTree.fromstring(svg(RESULT))
    texts = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert {"0.250", "1.000", "0.130", "1.400"} <= set(texts)
    assert sum(each.tag.endswith("polyline") for each in drawn.iter()) == 3
    assert sum(each.tag.endswith("circle") for each in drawn.iter()) == 4
