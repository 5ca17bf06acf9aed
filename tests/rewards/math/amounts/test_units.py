"""Units of measure in answers: conversion, contradiction, and letters that may also be algebra."""

import pytest

from rewards import verify
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import conversions

# (answer, gold): the same quantity.
SAME = [
    ("5000 W", "5 kW"),
    ("5000 J", "5 kJ"),
    ("2000 Hz", "2 kHz"),
    ("1.5 MPa", "1500 kPa"),
    ("20", "20 K"),
    ("5 ohm", r"5\,\Omega"),
    ("5 ohms", "5 Ω"),
    ("5", "5 Ω"),
    ("2 kΩ", "2000 Ω"),
    ("0.005 A", "5 mA"),
    ("0.001 s", "1 ms"),
    ("1000 nm", "1 μm"),
    (r"3 \mu m", "3 μm"),
    ("12 months", "1 year"),
    ("5000 kg/m^3", "5 g/cm^3"),
    ("60 km/h", "60 km per hour"),
    ("60 kph", "60 km/h"),
    ("60 mi/h", "60 mph"),
    ("60 miles an hour", "60 mph"),
    ("10 m/s", "36 km/h"),
    ("9.8 m/s^2", r"9.8 \mathrm{~m} / \mathrm{s}^{2}"),
    ("9.8 m/s/s", "9.8 m/s^2"),
    (r"9.8\ \text{m s}^{-2}", "9.8 m/s^2"),
    ("5 m·s^{-1}", "5 m/s"),
    ("5 m s^{-1}", "5 m/s"),
    (r"5\,\frac{\text{m}}{\text{s}}", "5 m/s"),
    ("3\\times10^8 m/s", "3e8 m/s"),
    ("16 oz", "1 lb"),
    ("3 pounds", "3 lb"),
    ("3 pounds", "£3"),
    ("2000 lb", "1 ton"),
    ("1000 kg", "1 ton"),
    ("33.5 pct", "0.335"),
    ("33.5 per cent", "33.5%"),
    ("5 percentage points", "5%"),
    ("20 ppm", "0.002%"),
    ("68 °F", "20 °C"),
    ("68 degrees Fahrenheit", "20 degrees Celsius"),
    ("293.15 K", "20 °C"),
    ("20 degrees", "20 °C"),
    ("-40 °F", r"-40^{\circ}\mathrm{C}"),
    ("5 kg·m/s^2", "5 N"),
    ("5 J", "5 N·m"),
    ("3600 kJ", "1 kWh"),
    ("5 V·A", "5 W"),
    ("4 qt", "1 gallon"),
    ("2 pints", "1 quart"),
    ("8 bits", "1 byte"),
    ("1000 MB", "1 GB"),
    ("760 mmHg", "1 atm"),
    ("101325 Pa", "1 atm"),
    ("10000 m^2", "1 hectare"),
    ("640 acres", "1 square mile"),
    ("144 square inches", "1 sq ft"),
    ("144 in^2", "1 ft^2"),
    ("27 cubic feet", "1 cubic yard"),
    ("1 mL", "1 cc"),
    ("1 cm³", "1 mL"),
    ("1 meter squared", "1 m^2"),
    ("20 square units", "20"),
    ("20 square units", "20 cm²"),
    ("20 units", "20 cm"),
    ("360 degrees per second", "60 rpm"),
    (r"\frac{\pi}{6} rad", "30°"),
    ("180 degrees", r"\pi\text{ rad}"),
    ("5 dollars an hour", r"\$5 per hour"),
    (r"\$5/hour", "5 dollars per hour"),
    ("5 dollars per person", r"\$5"),
    ("350 cents", r"\$3.50"),
    ("5 USD", r"\$5"),
    ("5 rupees", "₹5"),
    ("5 yen", "¥5"),
    ("5 kilograms", "5 kg"),
    ("5 Kilometers", "5 km"),
    ("2 meters tall", "2 m"),
    ("20 minutes longer", "20 min"),
    ("3 cups of flour", "3 cups"),
    ("4 rounds per year", "4 times per year"),
    ("1 light year", "1 ly"),
    (r"5\text{ m}", "5"),
    ("5", r"5\text{ m}"),
    (r"3\sqrt5", r"$3 \sqrt{5} \mathrm{ft} / \mathrm{s}$"),
    (r"3\sqrt5\text{ ft/s}", r"3\sqrt5"),
    ("6.76", r"$\approx 6.76$ miles/s"),
    ("104.32", r"$104.32 \mathrm{mi} / \mathrm{hr}$"),
    ("27", r"$27 \mathrm{~min}$"),
    ("27 min", r"$27 \mathrm{~min}$"),
    (r"27\text{ minutes}", r"$27 \mathrm{~min}$"),
    ("7 in", "7 inches"),
    ("3 cm × 4 cm", "12 cm²"),
    (r"36\pi m²", r"360000\pi cm²"),
    (r"5 \times 10^{3} m", "5 km"),
    (r"1.6\times10^{-19} C", "1.6e-19 C"),
    ("25 mpg", "25 miles per gallon"),
    ("2x cm", "2x"),
    ("5 people/km^2", "5 people per square kilometer"),
    (r"2\pi rad/s", "60 rpm"),
    ("8.31 J mol^{-1} K^{-1}", "8.31 J/(mol·K)"),
    ("5㎡", "5 m²"),
    ("500 cm", "x = 5 m"),
    (r"x = 500\text{ cm}", "x = 5 m"),
    ("5公斤", "5千克"),
    ("10 m/s", "36千米每小时"),
    ("5平方米", "5 m^2"),
    ("1千米", "1000米"),
    ("5摄氏度", "5 °C"),
    ("20 学生", "20"),
]
# (answer, gold): another quantity.
DIFFERENT = [
    ("10 m/s^2", "10 m/s"),
    ("9.8 m/s", "9.8 m/s^2"),
    ("5 kg/m^3", "5 g/cm^3"),
    ("10 km/s", "10 m/s"),
    ("5 atm", "5 Pa"),
    ("1 quart", "1 gallon"),
    ("5 bytes", "5 bits"),
    ("5 J", "5 J/kg"),
    ("5 J/kg", "5 J"),
    ("3 dollars", "3 rupees"),
    ("5 hectares", "5 acres"),
    ("5 dollars per day", "5 dollars per hour"),
    ("5 dollars", "5 dollars per hour"),
    ("5 dollars", "5 apples"),
    ("5 apples", "5 dollars"),
    ("5 people", "5 kg"),
    ("5 kW", "5 W"),
    ("5 MHz", "5 kHz"),
    ("5 mA", "5 MA"),
    ("5 mΩ", "5 MΩ"),
    ("5 K", "5 °C"),
    ("68 °C", "20 °F"),
    ("5 kWh", "5 kW"),
    ("5 ft^2", "5 ft"),
    ("5 square units", "5 cubic units"),
    ("5 square units", "5 cm"),
    ("5 days", "5 hours"),
    ("30 days", "1 month"),
    ("5 pesos", "5 euros"),
    ("5 won", "5 yen"),
    ("5 gal", "5 L"),
    ("5 cups", "5 pints"),
    ("5 tablespoons", "5 teaspoons"),
    ("5 yards", "5 m"),
    ("5 knots", "5 mph"),
    ("5 rad", "5°"),
    ("3 cm × 4 cm", "12 cm"),
    ("3 s/m", "3 m/s"),
    ("5 MB", "5 Mbit"),
    ("5 N", "5 kg"),
    ("5 lm", "5 lx"),
    ("5 Wb", "5 T"),
    ("5 eV", "5 J"),
    ("5 cal", "5 J"),
    ("5 mol/L", "5 mol/m^3"),
    ("5%", "5 ppm"),
    ("5 rounds per month", "4 rounds per year"),
    ("4 rounds per month", "4 rounds per year"),
    ("15 people per square km", "15 people per square mile"),
    ("5公里", "5米"),
    ("5元", "5角"),
    ("5美元", "5元"),
    ("5小时", "5分钟"),
    ("5吨", "5千克"),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same_quantity_in_another_spelling_or_unit_is_right(answer: str, gold: str) -> None:
    verdict = verify(rf"\boxed{{{answer}}}", gold)
    assert verdict.score == 1.0, verdict.reason


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_a_unit_that_contradicts_the_gold_answers_is_wrong(answer: str, gold: str) -> None:
    verdict = verify(rf"\boxed{{{answer}}}", gold)
    assert verdict.score == 0.0, verdict.reason


# (answer, gold, score): letters that are units beside a unit, and algebra beside algebra.
LETTERS = [
    ("5m", "5 m", 1.0),
    ("5m", "5 meters", 1.0),
    ("5m", "5 km", 0.0),
    ("5m", "5x", 0.0),
    ("m + 4m", "5 m", 1.0),
    ("10h", "10 h", 1.0),
    ("2a", "2a", 1.0),
    ("2a", "2", 0.0),
    ("3n", "3", 0.0),
    ("3s + 2s", "5s", 1.0),
    (r"\frac{3mg}{2}", r"\frac{3}{2}mg", 1.0),
    ("3pt", "3tp", 1.0),
    ("2 m/s", "2m/s", 1.0),
    ("15k", "15000", 1.0),
    ("15k", "15", 0.0),
    ("5bn", "5nb", 1.0),
    ("2mn", "2nm", 1.0),
    ("F = 5 m", "F = 5m", 1.0),
]


@pytest.mark.parametrize(("answer", "gold", "score"), LETTERS)
def test_letters_after_a_number_are_read_as_the_other_side_reads_them(
    answer: str, gold: str, score: float
) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


@pytest.mark.parametrize(
    ("text", "measure"),
    [
        ("m/s", (("length", 1), ("time", -1))),
        ("J/(kg·K)", (("length", 2), ("temperature", -1), ("time", -2))),
        ("N·m^{-1}", (("mass", 1), ("time", -2))),
        ("square feet", (("length", 2),)),
        (r"\text{kg}\cdot m/\text{s}", (("length", 1), ("mass", 1), ("time", -1))),
        ("立方厘米", (("length", 3),)),
    ],
)
def test_a_unit_is_a_product_of_powers_of_what_it_measures(text: str, measure: object) -> None:
    unit = find_unit(text)
    assert unit is not None
    assert unit.measure == measure


@pytest.mark.parametrize("text", ["apples", "x", "", "m//s", "m^", "(m", "one", "a", "per", "m" * 200])
def test_other_text_is_no_unit_of_measure(text: str) -> None:
    assert find_unit(text) is None


def test_the_zero_point_of_a_temperature_is_dropped_in_a_product() -> None:
    (change,) = conversions(find_unit("J/°C"), find_unit("J/K"))
    assert (change.factor, change.offset) == (1, 0)


def test_an_ambiguous_name_agrees_with_each_of_its_meanings() -> None:
    pound = find_unit("pounds")
    assert conversions(pound, find_unit("kg"))
    assert conversions(pound, find_unit("£"))
    assert not conversions(pound, find_unit("m"))
