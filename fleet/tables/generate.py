#!/usr/bin/env python3
"""Generates the location tables of the fleet and the world map of the gateway.

    python3 fleet/tables/generate.py           write the three files
    python3 fleet/tables/generate.py --check   exit 1 if a committed file differs

Outputs
    fleet/src/tables/countries.rs    a point and a continent for every country
    fleet/src/tables/registries.rs   which registry keeps which address block
    gateway/assets/land.path         outline of the world's land, an SVG path

The sources are fetched by name and pinned version with `pip download` and `npm pack`
into a temporary directory, and an archive whose SHA-256 is not the pinned one is
refused. Nothing of them is compiled or shipped; only the facts named here are taken.

Sources
    world-atlas 2.0.2 (npm)
        Country polygons at 1:10m and land at 1:110m, as TopoJSON. The package is ISC
        (its LICENSE; copyright 2013-2019 Michael Bostock). Its README names the data as
        Natural Earth 4.1.0, which by Natural Earth's own terms is public domain.
    i18n-iso-countries 7.14.0 (npm)
        The list of ISO 3166-1 codes (with XK), and the numeric codes that join it to
        world-atlas. MIT (its LICENSE; copyright 2016 widdix GmbH).
    countries-list 3.4.1 (npm)
        The continent of each country, but see `CONTINENT_CORRECTIONS`. MIT (its
        LICENSE; copyright 2014 Annexare Studio).
    netaddr 1.3.0 (Python)
        Carries two IANA registries as XML: the IPv4 address space (of 2023-12-18) and
        the IPv6 global unicast assignments (of 2019-11-06). The package is BSD 3-clause
        (its LICENSE.rst; copyright 2008 David P. D. Moss, 2020 netaddr contributors).
        IANA and the IETF Trust dedicate the registries themselves to the public domain
        (CC0 1.0, joint statement of 2021-11-10).
    tzdata 2025b (Debian; must be installed)
        zone.tab gives the place of each time zone's city, for countries that
        Natural Earth draws as a part of another and for those whose people live far
        from the middle of their land. Public domain (Debian's copyright file of the
        package, and the head of zone.tab).

Countries
    A country's point is the centroid of its largest polygon, worked out on the sphere,
    so the antimeridian and the poles need no special care. `ZONE_CITIES` lists the
    countries that take a city instead.
"""

import argparse
import hashlib
import io
import ipaddress
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

Point = tuple[float, float]  # longitude, latitude in degrees; or x, y on the map
Vector = tuple[float, float, float]
Ring = list[Point]  # closed: the last point repeats the first
Polygon = list[Ring]  # the outline, then the holes

ROOT = Path(__file__).resolve().parents[2]
COUNTRIES_FILE = ROOT / "fleet/src/tables/countries.rs"
REGISTRIES_FILE = ROOT / "fleet/src/tables/registries.rs"
LAND_FILE = ROOT / "gateway/assets/land.path"


@dataclass(frozen=True)
class Package:
    """A pinned archive of a package registry."""

    client: str
    name: str
    version: str
    sha256: str


WORLD_ATLAS = Package(
    "npm",
    "world-atlas",
    "2.0.2",
    "032e7765f2ce00edaeafec23ff22bc3b77e42987c257da944cc585b452c05b97",
)
ISO_COUNTRIES = Package(
    "npm",
    "i18n-iso-countries",
    "7.14.0",
    "bb418ebfb965789fcfbcce7dee59888d901ef64b03601da78b2e224cd6f5825c",
)
COUNTRIES_LIST = Package(
    "npm",
    "countries-list",
    "3.4.1",
    "572934a82137ec58a84a3e32635ec589cb9788e8df408f15677c71009d2adff2",
)
NETADDR = Package(
    "pip",
    "netaddr",
    "1.3.0",
    "c2c6a8ebe5554ce33b7d5b3a306b71bbb373e000bbbf2350dd5213cc56e3dbbe",
)

ZONEINFO = Path("/usr/share/zoneinfo")
TZDATA_VERSION = "2025b"

# ISO 3166-1 has 249 codes; XK (Kosovo) is a user-assigned one in common use.
COUNTRY_COUNT = 250

# Natural Earth's name for a country it gives no ISO number.
UNNUMBERED = {"Kosovo": "XK"}

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "NorthAmerica",
    "OC": "Oceania",
    "SA": "SouthAmerica",
}

# countries-list has Russia in Asia; its people, its point and UN M49 are in Europe.
CONTINENT_CORRECTIONS = {"RU": "EU"}

# The rule: where the middle of the largest piece of land lies some 350 km or more from
# the part of the country where most of its people live, a city of that part stands in.
ZONE_CITIES = {
    "AO": "Africa/Luanda",
    "AQ": "Antarctica/McMurdo",
    "AR": "America/Argentina/Buenos_Aires",
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "BW": "Africa/Gaborone",
    "CA": "America/Toronto",
    "CG": "Africa/Brazzaville",
    "CL": "America/Santiago",
    "CN": "Asia/Shanghai",
    "DZ": "Africa/Algiers",
    "EG": "Africa/Cairo",
    "FI": "Europe/Helsinki",
    "GL": "America/Nuuk",
    "ID": "Asia/Jakarta",
    "IR": "Asia/Tehran",
    "KI": "Pacific/Tarawa",
    "LY": "Africa/Tripoli",
    "MA": "Africa/Casablanca",
    "ML": "Africa/Bamako",
    "MR": "Africa/Nouakchott",
    "MX": "America/Mexico_City",
    "MY": "Asia/Kuala_Lumpur",
    "NE": "Africa/Niamey",
    "NO": "Europe/Oslo",
    "NZ": "Pacific/Auckland",
    "OM": "Asia/Muscat",
    "PE": "America/Lima",
    "RU": "Europe/Moscow",
    "SE": "Europe/Stockholm",
    "TD": "Africa/Ndjamena",
    "UZ": "Asia/Tashkent",
    "VE": "America/Caracas",
    "YE": "Asia/Aden",
    "ZA": "Africa/Johannesburg",
}

# Uninhabited, so without a time zone, and drawn as the southernmost part of another.
SOUTHERNMOST_PART_OF = {"BV": "NO"}

# Latitude, longitude and the distance in degrees a generated point may be off them.
KNOWN_POINTS = {
    "BV": (-54.4, 3.4, 0.3),
    "CN": (31.2, 121.5, 0.3),
    "DE": (51.0, 10.0, 1.0),
    "FJ": (-17.8, 178.0, 0.5),
    "FR": (46.6, 2.5, 1.0),
    "GF": (4.9, -52.3, 0.5),
    "IN": (22.5, 79.5, 1.5),
    "JP": (36.5, 138.0, 1.5),
    "KR": (36.5, 127.8, 0.7),
    "NZ": (-36.8, 174.8, 0.5),
    "RU": (55.8, 37.6, 0.3),
    "US": (40.0, -99.0, 3.0),
    "XK": (42.6, 20.9, 0.3),
}

REGISTRIES = {
    "whois.afrinic.net": "Afrinic",
    "whois.apnic.net": "Apnic",
    "whois.arin.net": "Arin",
    "whois.lacnic.net": "Lacnic",
    "whois.ripe.net": "RipeNcc",
}

IANA_NAMESPACE = "{http://www.iana.org/assignments}"

# The map: 720 by 360 pixels, so two of them to a degree.
PIXELS_PER_DEGREE = 2
MAP_WIDTH = 360 * PIXELS_PER_DEGREE
ANTARCTIC_LATITUDE = -60.0
SMALLEST_RING = 1.5  # square pixels
SIMPLIFY_TOLERANCE = 0.7  # pixels
LARGEST_LAND_FILE = 14_000  # bytes


def stop(message: str) -> NoReturn:
    """Ends the run with status 1."""
    raise SystemExit(f"generate.py: {message}")


def require(condition: bool, message: str) -> None:
    """Ends the run with status 1 unless `condition` holds."""
    if not condition:
        stop(message)


# Fetching


def fetch(package: Package, directory: Path) -> bytes:
    """The bytes of a package's archive, fetched with its ordinary client."""
    target = directory / package.name
    target.mkdir()
    if package.client == "npm":
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", f"{package.name}=={package.version}"]
    subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL)
    (archive,) = target.iterdir()
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    require(found == package.sha256, f"{archive.name} has SHA-256 {found}, not the pinned one")
    return content


def npm_member(archive: bytes, name: str) -> bytes:
    """One file of an npm package."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        member = tar.extractfile(f"package/{name}")
        if member is None:
            stop(f"{name} is not a file in its package")
        return member.read()


def wheel_member(archive: bytes, name: str) -> bytes:
    """One file of a Python wheel."""
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        return wheel.read(name)


def read_zone_cities() -> dict[str, dict[str, Point]]:
    """The cities of tzdata's zone.tab: country, then zone name, then point."""
    require((ZONEINFO / "zone.tab").is_file(), "the package tzdata is not installed")
    version = (ZONEINFO / "tzdata.zi").read_text("utf-8").split("\n", 1)[0].split()[-1]
    if version != TZDATA_VERSION:
        print(f"note: tzdata is {version}; the tables were made with {TZDATA_VERSION}")
    cities: dict[str, dict[str, Point]] = {}
    for line in (ZONEINFO / "zone.tab").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            country, place, zone = line.split("\t")[:3]
            cities.setdefault(country, {})[zone] = parse_iso6709(place)
    return cities


def parse_iso6709(text: str) -> Point:
    """The point of an ISO 6709 string: +DDMM+DDDMM or +DDMMSS+DDDMMSS."""
    parts = re.fullmatch(r"([+-])(\d\d)(\d\d)(\d\d)?([+-])(\d{3})(\d\d)(\d\d)?", text)
    if parts is None:
        stop(f"{text} is not an ISO 6709 place")
    north = degrees(*parts.groups()[:4])
    east = degrees(*parts.groups()[4:])
    return east, north


def degrees(sign: str, whole: str, minutes: str, seconds: str | None) -> float:
    """Decimal degrees of an angle given in text parts."""
    value = int(whole) + int(minutes) / 60 + int(seconds or 0) / 3600
    return -value if sign == "-" else value


# TopoJSON


@dataclass(frozen=True)
class Feature:
    """A geometry of a TopoJSON file with its polygons put together."""

    iso_number: str | None
    name: str | None
    polygons: list[Polygon]


def read_topology(content: bytes, layer: str) -> list[Feature]:
    """The features of one layer of a quantized TopoJSON file."""
    topology = json.loads(content)
    arcs = [decode_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    features = []
    for geometry in topology["objects"][layer]["geometries"]:
        single = geometry["type"] == "Polygon"
        shapes = [geometry["arcs"]] if single else geometry["arcs"]
        polygons = [[join_arcs(ring, arcs) for ring in shape] for shape in shapes]
        name = geometry.get("properties", {}).get("name")
        features.append(Feature(geometry.get("id"), name, polygons))
    return features


def decode_arc(steps: list[list[int]], transform: dict[str, list[float]]) -> list[Point]:
    """Points of an arc, which the file keeps as steps on a grid."""
    (scale_x, scale_y), (origin_x, origin_y) = transform["scale"], transform["translate"]
    points = []
    x = y = 0
    for step_x, step_y in steps:
        x += step_x
        y += step_y
        points.append((x * scale_x + origin_x, y * scale_y + origin_y))
    return points


def join_arcs(indexes: list[int], arcs: list[list[Point]]) -> Ring:
    """The ring made of the arcs at `indexes`; ~i is arc i run backwards."""
    ring: Ring = []
    for index in indexes:
        points = arcs[index] if index >= 0 else arcs[~index][::-1]
        ring += points[1:] if ring else points
    return ring


# Centroids on the sphere


def unit_vector(point: Point) -> Vector:
    """The point of the unit sphere at a longitude and latitude."""
    longitude, latitude = math.radians(point[0]), math.radians(point[1])
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )


def cross(a: Vector, b: Vector) -> Vector:
    """The cross product."""
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def subtract(a: Vector, b: Vector) -> Vector:
    """The difference of two vectors."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def ring_moment(ring: Ring) -> Vector:
    """The integral of the position vector over the inside of a ring.

    It points to the centroid, and its length grows with the area. By Stokes' theorem it
    is half the sum, over the edges, of an edge's angle times the normal of its great
    circle; the sign follows from the way round the ring runs and is set outward here.
    """
    corners = [unit_vector(point) for point in ring]
    x = y = z = 0.0
    for a, b in pairwise(corners):
        normal = cross(a, b)
        sine = math.hypot(*normal)
        if sine > 0:
            weight = math.atan2(sine, dot(a, b)) / (2 * sine)
            x += weight * normal[0]
            y += weight * normal[1]
            z += weight * normal[2]
    return (x, y, z) if dot((x, y, z), corners[0]) > 0 else (-x, -y, -z)


def polygon_moment(polygon: Polygon) -> Vector:
    """The moment of a polygon: its outline's less its holes'."""
    outline, *holes = polygon
    moment = ring_moment(outline)
    for hole in holes:
        moment = subtract(moment, ring_moment(hole))
    return moment


def direction(vector: Vector) -> Point:
    """The longitude and latitude a vector points to."""
    x, y, z = vector
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


# Countries


def country_moments(atlas: bytes, numbers: dict[str, str]) -> dict[str, list[Vector]]:
    """The moments of every country's polygons in Natural Earth, by alpha-2 code.

    A number may come with several features (Australia's islands have their own), and an
    outline so small that the file's grid makes it a line (the Vatican's) is left out.
    """
    moments: dict[str, list[Vector]] = {}
    for feature in read_topology(atlas, "countries"):
        code = numbers.get(feature.iso_number or "") or UNNUMBERED.get(feature.name or "")
        if code is None:
            continue
        for polygon in feature.polygons:
            moment = polygon_moment(polygon)
            if any(moment):
                moments.setdefault(code, []).append(moment)
    return moments


def country_point(
    code: str, moments: dict[str, list[Vector]], cities: dict[str, dict[str, Point]]
) -> Point:
    """Where a country is held to be; see the top of this file."""
    if code in ZONE_CITIES:
        return cities[code][ZONE_CITIES[code]]
    if code in SOUTHERNMOST_PART_OF:
        parts = map(direction, moments[SOUTHERNMOST_PART_OF[code]])
        return min(parts, key=lambda point: point[1])
    if code in moments:
        return direction(max(moments[code], key=lambda moment: math.hypot(*moment)))
    require(len(cities.get(code, {})) == 1, f"{code} is not drawn and not in one time zone")
    (point,) = cities[code].values()
    return point


def countries(
    atlas: bytes, iso_countries: bytes, countries_list: bytes
) -> dict[str, tuple[str, Point]]:
    """Continent and point of every country, in the order of the codes."""
    rows = json.loads(npm_member(iso_countries, "codes.json"))
    numbers = {number: alpha2 for alpha2, _, number, _ in rows}
    codes = sorted(row[0] for row in rows)
    require("XK" in codes, "XK is missing")
    require(len(set(codes)) == COUNTRY_COUNT, f"there are {len(set(codes))} country codes")
    details = json.loads(npm_member(countries_list, "countries.min.json"))
    moments = country_moments(npm_member(atlas, "countries-10m.json"), numbers)
    cities = read_zone_cities()
    table = {}
    for code in codes:
        longitude, latitude = country_point(code, moments, cities)
        continent = CONTINENT_CORRECTIONS.get(code, details[code]["continent"])
        table[code] = CONTINENTS[continent], (tenths(longitude), tenths(latitude))
    check_known_points(table)
    return table


def tenths(value: float) -> float:
    """A number rounded to one decimal, without a negative zero."""
    return round(value, 1) + 0.0


def check_known_points(table: dict[str, tuple[str, Point]]) -> None:
    """Stops the run if a country is far from where it is known to be."""
    for code, (latitude, longitude, tolerance) in KNOWN_POINTS.items():
        _, point = table[code]
        off = max(abs(point[0] - longitude), abs(point[1] - latitude))
        require(off <= tolerance, f"{code} came out at {point[1]}, {point[0]}")


def countries_source(table: dict[str, tuple[str, Point]]) -> str:
    """The Rust source of the country table."""
    lines = [
        "//! Country points. Generated by `fleet/tables/generate.py`, not by hand; sources and",
        "//! licences are named there.",
        "",
        "use crate::location::Continent;",
        "",
        "/// ISO 3166-1 alpha-2 code, continent, latitude, longitude in degrees; sorted by code.",
        "pub(crate) static COUNTRIES: &[(&str, Continent, f32, f32)] = &[",
    ]
    for code, (continent, (longitude, latitude)) in table.items():
        lines.append(f'    ("{code}", Continent::{continent}, {latitude}, {longitude}),')
    return "\n".join([*lines, "];", ""])


# Registries


def registry_records(wheel: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Prefix and registry of each block that one of the five registries keeps.

    Their whois server names them, which counts a legacy block for the registry that now
    administers it. Blocks that are reserved, multicast, private or kept by IANA for a
    special use name none of those servers.
    """
    registry = ElementTree.fromstring(wheel_member(wheel, f"netaddr/ip/{name}.xml"))
    for record in registry.iter(f"{IANA_NAMESPACE}record"):
        whois = record.findtext(f"{IANA_NAMESPACE}whois")
        prefix = record.findtext(f"{IANA_NAMESPACE}prefix")
        if prefix is not None and whois in REGISTRIES:
            yield prefix, REGISTRIES[whois]


def v4_rows(wheel: bytes) -> list[tuple[int, str]]:
    """First octet and registry of each IPv4 /8."""
    rows = []
    for prefix, registry in registry_records(wheel, "ipv4-address-space"):
        octet, length = prefix.split("/")
        require(length == "8", f"{prefix} is not a /8")
        rows.append((int(octet), registry))
    rows.sort()
    require(len({octet for octet, _ in rows}) == len(rows), "a /8 occurs twice")
    return rows


def v6_rows(wheel: bytes) -> list[tuple[ipaddress.IPv6Network, str]]:
    """Block and registry of each IPv6 assignment."""
    rows = [
        (ipaddress.IPv6Network(prefix), registry)
        for prefix, registry in registry_records(wheel, "ipv6-unicast-address-assignments")
    ]
    rows.sort()
    for (block, _), (following, _) in pairwise(rows):
        require(not block.overlaps(following), f"{block} and {following} overlap")
    return rows


def u128_literal(value: int) -> str:
    """A Rust literal of an IPv6 address, grouped like the address."""
    digits = f"{value:032x}"
    return "0x" + "_".join(digits[start : start + 4] for start in range(0, 32, 4))


def registries_source(
    v4: list[tuple[int, str]], v6: list[tuple[ipaddress.IPv6Network, str]]
) -> str:
    """The Rust source of the registry tables."""
    lines = [
        "//! Blocks of the regional Internet registries. Generated by `fleet/tables/generate.py`,",
        "//! not by hand; sources and licences are named there.",
        "",
        "use crate::location::Registry;",
        "",
        "/// First octet of each allocated IPv4 /8 and the registry that keeps it (IANA IPv4",
        "/// address space registry); sorted.",
        "pub(crate) static V4: &[(u8, Registry)] = &[",
    ]
    lines += [f"    ({octet}, Registry::{registry})," for octet, registry in v4]
    lines += [
        "];",
        "",
        "/// IPv6 blocks: first 128-bit address, prefix length, registry; sorted, not overlapping.",
        "pub(crate) static V6: &[(u128, u8, Registry)] = &[",
    ]
    for block, registry in v6:
        first = u128_literal(int(block.network_address))
        lines.append(f"    ({first}, {block.prefixlen}, Registry::{registry}),")
    return "\n".join([*lines, "];", ""])


# Land


def land_rings(atlas: bytes) -> list[Ring]:
    """The land's rings on the map in pixels, without Antarctica and specks."""
    rings = []
    for feature in read_topology(npm_member(atlas, "land-110m.json"), "land"):
        for polygon in feature.polygons:
            if all(latitude < ANTARCTIC_LATITUDE for _, latitude in polygon[0]):
                continue
            pieces = [piece for ring in polygon for piece in cut_at_antimeridian(ring)]
            on_map = [[project(point) for point in piece] for piece in pieces]
            rings += [simplify(ring) for ring in on_map if flat_area(ring) >= SMALLEST_RING]
    for ring in rings:
        require(all(0 <= x <= MAP_WIDTH for x, _ in ring), "land runs off the map")
        widest = max(abs(a[0] - b[0]) for a, b in pairwise(ring))
        require(widest < MAP_WIDTH / 2, "land runs across the antimeridian")
    return rings


def cut_at_antimeridian(ring: Ring) -> list[Ring]:
    """The pieces of a ring, which may run across the antimeridian, within the map."""
    unrolled = [ring[0]]
    for longitude, latitude in ring[1:]:
        turns = round((unrolled[-1][0] - longitude) / 360)
        unrolled.append((longitude + 360 * turns, latitude))
    require(unrolled[0] == unrolled[-1], "a ring goes round a pole")
    pieces = []
    for shift in (-360, 0, 360):
        moved = [(longitude + shift, latitude) for longitude, latitude in unrolled]
        piece = clip(clip(moved, 180, 1), -180, -1)
        if piece:
            pieces.append(piece)
    return pieces


def clip(ring: Ring, limit: float, side: int) -> Ring:
    """The part of a ring west (side 1) or east (side -1) of a meridian, closed anew."""
    kept: Ring = []
    for a, b in pairwise(ring):
        if side * (a[0] - limit) <= 0:
            kept.append(a)
        if (a[0] - limit) * (b[0] - limit) < 0:
            share = (limit - a[0]) / (b[0] - a[0])
            kept.append((limit, a[1] + share * (b[1] - a[1])))
    return [*kept, kept[0]] if kept else []


def project(point: Point) -> Point:
    """The pixel of a point: plate carrée, north up, the antimeridian at both sides."""
    longitude, latitude = point
    return (longitude + 180) * PIXELS_PER_DEGREE, (90 - latitude) * PIXELS_PER_DEGREE


def flat_area(ring: Ring) -> float:
    """The area within a ring on the map."""
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))) / 2


def simplify(ring: Ring) -> Ring:
    """A ring with fewer points, by Douglas-Peucker on the two halves of it."""
    middle = max(range(len(ring)), key=lambda index: math.dist(ring[0], ring[index]))
    return simplify_line(ring[: middle + 1])[:-1] + simplify_line(ring[middle:])


def simplify_line(line: list[Point]) -> list[Point]:
    """A line without the points that lie within the tolerance of the rest."""
    if len(line) < 3:
        return line
    offsets = [distance_to_segment(point, line[0], line[-1]) for point in line]
    farthest = max(range(len(line)), key=offsets.__getitem__)
    if offsets[farthest] <= SIMPLIFY_TOLERANCE:
        return [line[0], line[-1]]
    return simplify_line(line[: farthest + 1])[:-1] + simplify_line(line[farthest:])


def distance_to_segment(point: Point, start: Point, end: Point) -> float:
    """How far a point is from the segment between two others."""
    across, down = end[0] - start[0], end[1] - start[1]
    square = across * across + down * down
    along = (point[0] - start[0]) * across + (point[1] - start[1]) * down
    share = min(1.0, max(0.0, along / square)) if square else 0.0
    return math.dist(point, (start[0] + share * across, start[1] + share * down))


def svg_numbers(values: list[int]) -> str:
    """Numbers given in tenths, as short as SVG paths allow."""
    text = ""
    for value in values:
        whole, tenth = divmod(abs(value), 10)
        digits = (str(whole) if whole or not tenth else "") + (f".{tenth}" if tenth else "")
        if value < 0:
            text += "-" + digits
        else:
            text += (" " if text else "") + digits
    return text


def ring_path(ring: Ring) -> str:
    """The path of a ring: one absolute move, then relative lines, in tenths of a pixel."""
    corners = [(round(x * 10), round(y * 10)) for x, y in ring[:-1]]
    steps: list[int] = []
    for (x, y), (next_x, next_y) in pairwise(corners):
        if (x, y) != (next_x, next_y):
            steps += [next_x - x, next_y - y]
    return f"M{svg_numbers(list(corners[0]))}l{svg_numbers(steps)}z"


def land_path(rings: list[Ring]) -> str:
    """The path of all rings, on one line."""
    path = "".join(ring_path(ring) for ring in rings) + "\n"
    require(len(path) <= LARGEST_LAND_FILE, f"the land's path has {len(path)} bytes")
    return path


# The run


def generate() -> dict[Path, str]:
    """What each of the files should hold."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        atlas = fetch(WORLD_ATLAS, directory)
        iso_countries = fetch(ISO_COUNTRIES, directory)
        countries_list = fetch(COUNTRIES_LIST, directory)
        netaddr = fetch(NETADDR, directory)
    table = countries(atlas, iso_countries, countries_list)
    v4, v6 = v4_rows(netaddr), v6_rows(netaddr)
    rings = land_rings(atlas)
    print(f"{len(table)} countries, {len(v4)} IPv4 and {len(v6)} IPv6 blocks, {len(rings)} rings")
    return {
        COUNTRIES_FILE: countries_source(table),
        REGISTRIES_FILE: registries_source(v4, v6),
        LAND_FILE: land_path(rings),
    }


def write(files: dict[Path, str]) -> None:
    """Writes the files."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())


def check(files: dict[Path, str]) -> None:
    """Stops the run if a file on disk is not what it should be."""
    differing = [
        str(path.relative_to(ROOT))
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content.encode()
    ]
    require(not differing, f"not as generated: {', '.join(differing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates the location tables and the map.")
    parser.add_argument("--check", action="store_true", help="only compare with the files")
    arguments = parser.parse_args()
    files = generate()
    if arguments.check:
        check(files)
    else:
        write(files)


if __name__ == "__main__":
    main()
