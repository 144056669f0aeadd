from __future__ import annotations

import pytest
from store_parts import WEATHER, catalog, feature, rows, view

from tidemill.errors import InputError


@pytest.mark.parametrize("nulls", [set(), {0, 7, 99}, set(range(50)), set(range(50, 100)), set(range(100))])
def test_many_rows_come_in_order_whichever_of_their_keys_are_null(make, nulls: set[int]):
    route = view("route", feature("distance"), entities=("plane", "origin"))
    store = make(catalog(WEATHER, route))
    names = [f"A{number}" for number in range(100)]
    store.write("weather", rows(*({"origin": name, "temp": n / 2, "wind": n} for n, name in enumerate(names))))
    store.write("route", rows(*({"tail": n, "origin": name, "distance": n / 4} for n, name in enumerate(names))))
    asked = [{"origin": None if n in nulls else name, "tail": n} for n, name in enumerate(names)]
    found = store.read("all", asked)
    assert found.values["temp"] == [None if n in nulls else n / 2 for n in range(100)]
    assert found.values["wind"] == [None if n in nulls else n for n in range(100)]
    assert found.values["distance"] == [None if n in nulls else n / 4 for n in range(100)]


@pytest.mark.parametrize("place", [3, 50, 99])
def test_a_row_without_a_key_is_named_and_the_next_read_is_answered(make, place: int):
    store = make(catalog(WEATHER))
    store.write("weather", rows({"origin": "JFK", "temp": 20.5, "wind": 7}))
    asked = [{"origin": "JFK"} for _ in range(100)]
    asked[place] = {"dest": "JFK"}
    with pytest.raises(InputError, match=f"Row {place} lacks the key 'origin'"):
        store.read("all", asked)
    assert store.read("all", asked[:3]).values["temp"] == [20.5] * 3
