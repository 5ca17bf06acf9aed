"""Table of units of measure: names, definitions in base units, prefixes.

Sizes are exact. Sources: the SI Brochure (9th edition) and NIST Special Publication 811, appendix B. A year is
12 months, but neither is a number of days. A millimetre of mercury is taken as the torr.
"""

from __future__ import annotations

# Base units and what they measure. Percentages, money and information are measures of their own.
BASES = {
    "m": "length", "g": "mass", "s": "time", "A": "current", "K": "temperature", "mol": "amount",
    "cd": "luminous intensity", "sr": "solid angle", "°": "angle", "month": "months", "bit": "information",
    "one": "share", "dB": "level", "unit": "unit", "dollar": "dollar", "yuan": "yuan", "euro": "euro",
    "sterling": "sterling", "yen": "yen", "rupee": "rupee", "peso": "peso", "won": "won", "ruble": "ruble",
    "franc": "franc", "krona": "krona", "lira": "lira", "dinar": "dinar", "dirham": "dirham", "rial": "rial",
    "baht": "baht", "ringgit": "ringgit", "rand": "rand", "shekel": "shekel", "zloty": "zloty",
    "forint": "forint", "dong": "dong", "naira": "naira", "taka": "taka", "shilling": "shilling",
    "rupiah": "rupiah", "bitcoin": "bitcoin", "Hong Kong dollar": "Hong Kong dollar",
}  # fmt: skip
# Symbol: its size and definition; "m-2" is a power. "pi" is the power of π, "+" an offset of the zero point.
DEFINITIONS = {
    "°C": "1 K + 5463/20", "°F": "5/9 K + 45967/180", "°R": "5/9 K",
    "rad": "180 ° pi-1", "'": "1/60 °", '"': "1/3600 °", "rev": "360 °", "grad": "9/10 °",
    "%": "1/100 one", "pp": "1/100 one", "‰": "1/1000 one", "bp": "1/10000 one", "ppm": "1/1000000 one",
    "ppb": "1/1000000000 one",
    "min": "60 s", "h": "3600 s", "day": "86400 s", "week": "604800 s", "fortnight": "1209600 s",
    "year": "12 month", "decade": "120 month", "century": "1200 month", "millennium": "12000 month",
    "t": "1000000 g", "lb": "45359237/100000 g", "oz": "45359237/1600000 g", "stone": "317514659/50000 g",
    "short ton": "45359237/50 g", "troy ounce": "311034768/10000000 g", "carat": "1/5 g", "jin": "500 g",
    "liang": "50 g", "grain": "6479891/100000000 g", "amu": "1.66053906660e-24 g",
    "in": "127/5000 m", "ft": "381/1250 m", "yd": "1143/1250 m", "mi": "201168/125 m", "nmi": "1852 m",
    "fathom": "1143/625 m", "furlong": "25146/125 m", "li": "500 m", "Å": "1e-10 m", "micron": "1e-6 m",
    "ly": "9460730472580800 m", "au": "149597870700 m", "pc": "3.0856775814913673e16 m",
    "ha": "10000 m2", "are": "100 m2", "acre": "316160658/78125 m2", "mu": "2000/3 m2",
    "L": "1/1000 m3", "l": "1/1000 m3", "cc": "1/1000000 m3", "gal": "473176473/125000000000 m3",
    "qt": "473176473/500000000000 m3", "pt": "473176473/1000000000000 m3",
    "cup": "473176473/2000000000000 m3", "fl oz": "473176473/16000000000000 m3",
    "tbsp": "473176473/32000000000000 m3", "tsp": "157725491/32000000000000 m3",
    "bushel": "220244188543/6250000000000 m3", "barrel": "9936705933/62500000000 m3",
    "N": "1000 g m s-2", "dyn": "1/100 g m s-2", "lbf": "4448.2216152605 g m s-2", "kgf": "9806.65 g m s-2",
    "J": "1000 g m2 s-2", "erg": "1/10000 g m2 s-2", "cal": "4184 g m2 s-2", "Cal": "4184000 g m2 s-2",
    "eV": "1.602176634e-16 g m2 s-2", "Wh": "3600000 g m2 s-2", "Btu": "1055055.85262 g m2 s-2",
    "W": "1000 g m2 s-3", "hp": "745699.87158227022 g m2 s-3",
    "Pa": "1000 g m-1 s-2", "atm": "101325000 g m-1 s-2", "bar": "100000000 g m-1 s-2",
    "mmHg": "2533125/19 g m-1 s-2", "Torr": "2533125/19 g m-1 s-2",
    "psi": "6894757.293168361 g m-1 s-2",
    "C": "1 A s", "Ah": "3600 A s", "V": "1000 g m2 s-3 A-1", "Ω": "1000 g m2 s-3 A-2", "S": "1/1000 g-1 m-2 s3 A2",
    "F": "1/1000 g-1 m-2 s4 A2", "H": "1000 g m2 s-2 A-2", "Wb": "1000 g m2 s-2 A-1", "T": "1000 g s-2 A-1",
    "G": "1/10 g s-2 A-1",
    "Hz": "1 s-1", "Bq": "1 s-1", "Ci": "37000000000 s-1", "Gy": "1 m2 s-2", "Sv": "1 m2 s-2",
    "lm": "1 cd sr", "lx": "1 cd sr m-2", "kat": "1 mol s-1", "M": "1000 mol m-3",
    "mph": "1397/3125 m s-1", "km/h": "5/18 m s-1", "kn": "463/900 m s-1", "rpm": "6 ° s-1", "rps": "360 ° s-1",
    "B": "8 bit", "KiB": "8192 bit", "MiB": "8388608 bit", "GiB": "8589934592 bit",
    "cent": "1/100 dollar", "penny": "1/100 sterling", "jiao": "1/10 yuan", "fen": "1/100 yuan",
    "paisa": "1/100 rupee", "kopek": "1/100 ruble",
}  # fmt: skip
PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "d": -1, "c": -2, "m": -3,
    "μ": -6, "u": -6, "n": -9, "p": -12, "f": -15,
}  # fmt: skip
# The prefixes that are in use with a symbol; all of them would make units of too many letters of algebra.
PREFIXED = {
    "m": "kdcmμunpf", "g": "kmμun", "s": "mμunpf", "A": "kmμun", "W": "kMGTmμ", "J": "kMGTmμ", "Hz": "kMGT",
    "Pa": "khMG", "V": "kMmμ", "N": "kMmμ", "Ω": "kMm", "F": "mμunp", "C": "mμunp", "T": "mμn", "H": "mμ",
    "L": "kmcdμu", "l": "kmcdμu", "eV": "kMGTm", "cal": "k", "bit": "kMGT", "B": "kKMGTP", "mol": "kmμun", "Bq": "kMG",
    "Sv": "mμ", "Gy": "m", "bar": "m", "Wh": "kMGT", "Ah": "m", "lm": "k", "S": "m", "M": "mμun",
    "K": "mμ", "pc": "kM",
}  # fmt: skip
WORD_PREFIXES = {
    "kilo": 3, "mega": 6, "giga": 9, "tera": 12, "hecto": 2, "deci": -1, "centi": -2, "milli": -3, "micro": -6,
    "nano": -9, "pico": -12, "femto": -15,
}  # fmt: skip
# English names and other spellings; plurals in -s and -es need no entry. Several symbols: an ambiguous name.
NAMES = {
    "meter": "m", "metre": "m", "gram": "g", "gramme": "g", "kilo": "kg", "second": "s", "sec": "s", "ampere": "A",
    "amp": "A", "kelvin": "K", "mole": "mol", "candela": "cd", "steradian": "sr", "degree": "°",
    "deg": "°", "degree celsius": "°C", "degree centigrade": "°C", "celsius": "°C",
    "degree fahrenheit": "°F", "fahrenheit": "°F", "degree kelvin": "K", "degree c": "°C", "degree f": "°F",
    "°c": "°C", "°f": "°F", "° c": "°C", "° f": "°F", "°k": "K", "° celsius": "°C", "° fahrenheit": "°F",
    "radian": "rad", "arcminute": "'", "arc minute": "'", "arcsecond": '"', "arc second": '"',
    "revolution": "rev", "percent": "%", "pct": "%", "per cent": "%", "percentage point": "pp",
    "percent point": "pp", "basis point": "bp", "per mille": "‰", "per mil": "‰", "part per million": "ppm",
    "part per billion": "ppb", "minute": "min", "hour": "h", "hr": "h", "hrs": "h", "wk": "week",
    "yr": "year", "centuries": "century", "millennia": "millennium",
    "light year": "ly", "lightyear": "ly", "astronomical unit": "au", "AU": "au", "parsec": "pc",
    "angstrom": "Å", "ångström": "Å", "inch": "in", "inches": "in", "foot": "ft", "feet": "ft", "yard": "yd",
    "mile": "mi", "nautical mile": "nmi", "sea mile": "nmi", "tonne": "t", "metric ton": "t", "ton": "t|short ton",
    "pound": "sterling|lb", "lb": "lb", "lbs": "lb", "ounce": "oz|fl oz", "oz": "oz|fl oz", "fluid ounce": "fl oz",
    "fl. oz": "fl oz", "hectare": "ha", "ares": "are", "liter": "L", "litre": "L", "gallon": "gal",
    "quart": "qt", "pint": "pt", "tablespoon": "tbsp", "teaspoon": "tsp", "newton": "N", "dyne": "dyn",
    "pound force": "lbf", "joule": "J", "calorie": "cal|Cal", "Calorie": "Cal", "electron volt": "eV",
    "electronvolt": "eV", "watt hour": "Wh", "watthour": "Wh", "BTU": "Btu", "watt": "W", "horsepower": "hp", "horse power": "hp",
    "pascal": "Pa", "atmosphere": "atm", "torr": "Torr", "coulomb": "C", "volt": "V", "ohm": "Ω", "Ohm": "Ω",
    "siemens": "S", "farad": "F", "henry": "H", "henries": "H", "weber": "Wb", "tesla": "T", "gauss": "G",
    "hertz": "Hz", "becquerel": "Bq", "curie": "Ci", "gray": "Gy", "sievert": "Sv", "lumen": "lm", "lux": "lx",
    "molar": "M", "decibel": "dB", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "knot": "kn", "byte": "B",
    "ccs": "cc", "C": "C|°C", "F": "F|°F", "pound per square inch": "psi",
    "$": "dollar", "US$": "dollar", "USD": "dollar", "buck": "dollar", "cents": "cent", "¢": "cent",
    "pence": "penny", "pennies": "penny|cent", "penny": "penny|cent", "€": "euro", "EUR": "euro",
    "£": "sterling", "GBP": "sterling", "quid": "sterling", "pound sterling": "sterling", "¥": "yuan|yen",
    "RMB": "yuan", "rmb": "yuan", "CNY": "yuan", "JPY": "yen", "₹": "rupee", "Rs": "rupee", "INR": "rupee",
    "₩": "won", "KRW": "won", "₽": "ruble", "rouble": "ruble", "RUB": "ruble", "₱": "peso", "PHP": "peso", "MXN": "peso",
    "krone": "krona", "kronor": "krona", "kroner": "krona", "riyal": "rial", "CHF": "franc", "₪": "shekel",
    "฿": "baht", "₫": "dong", "₦": "naira", "BTC": "bitcoin", "jiao": "jiao", "fen": "fen", "paise": "paisa",
    }  # fmt: skip
# Chinese names; 平方 and 立方 before a length, 每 and / between units need no entry.
CHINESE = {
    "米": "m", "公尺": "m", "千米": "km", "公里": "km", "分米": "dm", "厘米": "cm", "公分": "cm", "毫米": "mm", "微米": "μm",
    "纳米": "nm", "里": "li", "海里": "nmi", "英里": "mi", "英尺": "ft", "英寸": "in", "码": "yd|", "光年": "ly",
    "克": "g", "千克": "kg", "公斤": "kg", "毫克": "mg", "吨": "t", "斤": "jin", "两": "liang", "磅": "lb", "盎司": "oz",
    "升": "L", "公升": "L", "毫升": "ml", "加仑": "gal", "秒": "s", "毫秒": "ms", "分钟": "min", "分": "min|fen|'|",
    "小时": "h", "时": "h", "钟头": "h", "个小时": "h", "天": "day", "日": "day", "周": "week|", "星期": "week", "个星期": "week",
    "月": "month", "个月": "month", "年": "year", "世纪": "century", "个世纪": "century",
    "元": "yuan", "块钱": "yuan", "元钱": "yuan", "人民币": "yuan", "角": "jiao|", "毛": "jiao|", "毛钱": "jiao", "分钱": "fen",
    "美元": "dollar", "美金": "dollar", "美分": "cent", "欧元": "euro", "英镑": "sterling", "日元": "yen", "韩元": "won",
    "卢布": "ruble", "卢比": "rupee", "比索": "peso", "港元": "Hong Kong dollar", "港币": "Hong Kong dollar",
    "度": "°|kWh", "摄氏度": "°C", "华氏度": "°F", "弧度": "rad", "开尔文": "K", "牛": "N|", "牛顿": "N", "焦": "J",
    "焦耳": "J", "千焦": "kJ", "千焦耳": "kJ", "瓦": "W", "瓦特": "W", "千瓦": "kW", "千瓦时": "kWh", "伏": "V", "伏特": "V",
    "安": "A", "安培": "A", "毫安": "mA", "欧": "Ω", "欧姆": "Ω", "千欧": "kΩ", "帕": "Pa", "帕斯卡": "Pa", "千帕": "kPa",
    "兆帕": "MPa", "赫兹": "Hz", "赫": "Hz", "千赫": "kHz", "兆赫": "MHz", "库仑": "C", "摩尔": "mol", "卡": "cal", "千卡": "kcal",
    "公顷": "ha", "公亩": "are", "亩": "mu", "大气压": "atm", "字节": "B", "比特": "bit", "百分点": "pp", "个百分点": "pp",
    "单位": "unit", "个单位": "unit", "单位长度": "unit", "个单位长度": "unit",
}  # fmt: skip
