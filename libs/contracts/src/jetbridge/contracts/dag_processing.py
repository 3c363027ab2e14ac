"""
Dag processing: what Dag processor agents say to the gateway, and gateways to the bridge.

A bundle is worked on by one agent at a time: the one that holds its *lease*, which the epoch names (see
:class:`BundleRecord`). Every request about a bundle carries the epoch and is refused after the lease was
lost. Most operations are Airflow's ``DagFileProcessorManager`` hooks of the same meaning, so their
semantics are Airflow's.

Each request is described once: as the body that goes to the bridge. What an agent sends is the same with
a ``contract`` and no unknown fields (``…Request``). Answers are passed on as they are.

Times never cross: clocks of two machines differ. What happened is told as an age, or is put on the
plane's clock with the help of :attr:`FileRecorded.now`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from jetbridge.contracts.api import CONTRACT, Request, Response
from jetbridge.contracts.envelope import Body
from jetbridge.contracts.ids import AgentName
from jetbridge.contracts.rpc import rpc_subject
from jetbridge.contracts.subjects import lane_of

AREA = "dag-processing"
ROLE = "dag-processor"

MAX_BUNDLES = 256
MAX_FILES = 100_000
MAX_CALLBACKS = 1_000
MAX_RESULT_BYTES = 32 << 20
"""Largest parsing result of one file, compressed. A Dag of 1,000 tasks is about 20 KiB."""

MAX_SOURCE_BYTES = 1 << 20
"""Of a Dag file's text; a larger one stays where it is."""

MAX_PARSE_SECONDS = 24 * 3600

RESULT_FORMAT = 1
"""Version of :class:`ParsingResult`, inside of the compressed bytes."""

BundleName = Annotated[str, Meta(min_length=1, max_length=250)]
"""As long as Airflow's ``dag_bundle.name``."""

Version = Annotated[str, Meta(max_length=200)]
RelativePath = Annotated[str, Meta(min_length=1, max_length=2000)]
"""A Dag file, relative to its bundle; inside a ZIP archive ``archive.zip/dag.py``."""

Epoch = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
CallbackId = Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$")]
Contract = Annotated[int, Meta(ge=1)]


def bundle_key(bundle: str) -> str:
    """Return the key of a bundle's record; the same rule as for lanes, since NATS' limits are the same."""
    return lane_of(bundle)


class BundleRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The lease of one bundle. It is gone when it was not renewed for ``topology.BUNDLE_LEASE_SECONDS``.

    ``epoch`` is the revision of the record's first write by its holder; 0 in that write itself, which
    cannot know it. Revisions only grow, so a later holder's epoch fences an earlier one's requests.
    """

    VERSION: ClassVar[int] = 1

    version: int = VERSION
    bundle: BundleName
    agent: AgentName
    instance: str
    epoch: int = 0


class HeldBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle and the epoch under which an agent holds it."""

    bundle: BundleName
    epoch: Epoch


class StandbyBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that another agent works on."""

    bundle: BundleName
    agent: AgentName


class ClaimBundlesRequest(Request, frozen=True, kw_only=True):
    """
    ``POST /v1/agents/{name}/bundles/claim``: take or keep bundles, and give others back.

    Sent every heartbeat interval: it renews the leases. ``release`` is given back at once, so that a
    standby need not wait for the lease to end.
    """

    bundles: Annotated[tuple[BundleName, ...], Meta(max_length=MAX_BUNDLES)] = ()
    release: Annotated[tuple[HeldBundle, ...], Meta(max_length=MAX_BUNDLES)] = ()


class ClaimBundlesResponse(Response, frozen=True, kw_only=True):
    """
    Every bundle asked for, either held or on standby. A lease not renewed in ``lease_seconds`` ends.

    ``opened`` are the classes of data that policies let it send as they are, as of now.
    """

    held: tuple[HeldBundle, ...] = ()
    standby: tuple[StandbyBundle, ...] = ()
    lease_seconds: float
    opened: tuple[str, ...] = ()


class DeclareBundle(Body, frozen=True, kw_only=True):
    """
    Make the bundle known to Airflow, or change how it is shown.

    ``view_url_template`` and ``template_params`` are what Airflow's bundle class answers, for the links
    of the UI.
    """

    TYPE: ClassVar[str] = "dag-processing.declare-bundle"

    bundle: BundleName
    epoch: Epoch
    view_url_template: Annotated[str, Meta(max_length=4096)] | None = None
    template_params: Annotated[dict[str, str], Meta(max_length=64)] = msgspec.field(default_factory=dict)


class GetBundleState(Body, frozen=True, kw_only=True):
    """Ask when the bundle was refreshed and at which version, as far as the plane knows."""

    TYPE: ClassVar[str] = "dag-processing.get-bundle-state"

    bundle: BundleName
    epoch: Epoch


class BundleStateAnswer(Body, frozen=True, kw_only=True):
    """Answer to :class:`GetBundleState`. ``known`` is false until the bundle was declared."""

    TYPE: ClassVar[str] = "dag-processing.bundle-state"

    known: bool
    version: str | None = None
    refreshed_seconds_ago: float | None = None


class BundleRefreshed(Body, frozen=True, kw_only=True):
    """The bundle was refreshed just now. ``version`` None means that the version is as before."""

    TYPE: ClassVar[str] = "dag-processing.bundle-refreshed"

    bundle: BundleName
    epoch: Epoch
    version: Version | None = None


class FilesPresent(Body, frozen=True, kw_only=True):
    """These are all Dag files of the bundle: deactivate Dags and forget import errors of any other."""

    TYPE: ClassVar[str] = "dag-processing.files-present"

    bundle: BundleName
    epoch: Epoch
    paths: Annotated[tuple[RelativePath, ...], Meta(max_length=MAX_FILES)]


class FileParsed(Body, frozen=True, kw_only=True):
    """
    A Dag file was parsed.

    ``result`` is a :class:`ParsingResult` (see ``packing``), and ``hash`` the SHA-256 of its JSON. It is
    left out when the plane confirmed that hash before; a plane that forgot asks for it in its answer.
    """

    TYPE: ClassVar[str] = "dag-processing.file-parsed"

    bundle: BundleName
    epoch: Epoch
    path: RelativePath
    version: Version | None = None
    version_data: dict[str, Any] | None = None
    run_seconds: Annotated[float, Meta(ge=0, le=MAX_PARSE_SECONDS)]
    hash: Sha256
    result: Annotated[bytes, Meta(max_length=MAX_RESULT_BYTES)] | None = None


class FileRecorded(Body, frozen=True, kw_only=True):
    """
    Answer to :class:`FileParsed`.

    ``hash`` is what the plane now has for the file. None means that nothing was written, because
    ``result`` was left out and the plane does not have it: send it. ``now`` is the plane's time.
    """

    TYPE: ClassVar[str] = "dag-processing.file-recorded"

    hash: Sha256 | None
    now: datetime


class ParsedAgo(msgspec.Struct, frozen=True, kw_only=True):
    """A file and when it was last parsed, by the plane's clock (see :attr:`FileRecorded.now`)."""

    path: RelativePath
    at: datetime


class DeactivateStale(Body, frozen=True, kw_only=True):
    """Deactivate Dags that were not in their file the last few times it was parsed."""

    TYPE: ClassVar[str] = "dag-processing.deactivate-stale"

    bundle: BundleName
    epoch: Epoch
    parsed: Annotated[tuple[ParsedAgo, ...], Meta(max_length=MAX_FILES)]


class GetRequests(Body, frozen=True, kw_only=True):
    """
    Ask for files that somebody wants parsed now, and for callbacks to run.

    ``done`` are callbacks that have ended, well or not; they are not handed out again. Callbacks that
    are not named are handed out again, so that one is not lost with an agent. ``agent`` is filled in by the
    gateway, whatever it was.
    """

    TYPE: ClassVar[str] = "dag-processing.get-requests"

    bundles: Annotated[tuple[HeldBundle, ...], Meta(max_length=MAX_BUNDLES)]
    done: Annotated[tuple[CallbackId, ...], Meta(max_length=MAX_CALLBACKS)] = ()
    running: Annotated[tuple[CallbackId, ...], Meta(max_length=MAX_CALLBACKS)] = ()
    max_callbacks: Annotated[int, Meta(ge=0, le=MAX_CALLBACKS)] = 20
    agent: Annotated[str, Meta(max_length=63)] = ""


class FindDag(Body, frozen=True, kw_only=True):
    """Ask of which bundle a Dag is; a gateway asks before a Dag processor may read about it."""

    TYPE: ClassVar[str] = "dag-processing.find-dag"

    dag_id: Annotated[str, Meta(max_length=1024)]


class DagFound(Body, frozen=True, kw_only=True):
    """Answer to :class:`FindDag`; None when there is no such Dag."""

    TYPE: ClassVar[str] = "dag-processing.dag-found"

    bundle: str | None = None


class PriorityFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that somebody wants parsed now."""

    bundle: BundleName
    path: RelativePath


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """``request`` is one of Airflow's callback requests as JSON, ``kind`` its class."""

    id: CallbackId
    kind: str
    request: msgspec.Raw


class Requests(Body, frozen=True, kw_only=True):
    """Answer to :class:`GetRequests`. Files are named once; whoever loses the answer loses them."""

    TYPE: ClassVar[str] = "dag-processing.requests"

    files: tuple[PriorityFile, ...] = ()
    callbacks: tuple[Callback, ...] = ()


class Noted(Body, frozen=True, kw_only=True):
    """Answer to what only has to be noted."""

    TYPE: ClassVar[str] = "dag-processing.noted"


class DeclareBundleRequest(DeclareBundle, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/declare``."""

    contract: Contract = CONTRACT


class GetBundleStateRequest(GetBundleState, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/state``."""

    contract: Contract = CONTRACT


class BundleRefreshedRequest(BundleRefreshed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/refreshed``."""

    contract: Contract = CONTRACT


class FilesPresentRequest(FilesPresent, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/files``."""

    contract: Contract = CONTRACT


class FileParsedRequest(FileParsed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/parsed``."""

    contract: Contract = CONTRACT


class DeactivateStaleRequest(DeactivateStale, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/stale``."""

    contract: Contract = CONTRACT


class GetRequestsRequest(GetRequests, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/agents/{name}/bundles/requests``."""

    contract: Contract = CONTRACT


class ParsedDag(msgspec.Struct, frozen=True, kw_only=True):
    """One Dag as Airflow serialized it, the whole JSON object with its ``__version``."""

    data: dict[str, Any]


class ParsedWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A Dag warning, as in Airflow's ``dag_warning``."""

    dag_id: str
    warning_type: str
    message: str


class ParsingResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What parsing one file gave: packed by the agent, unpacked by the bridge.

    ``import_errors`` are tracebacks by path. ``source`` is the text of the file, left out unless a policy
    lets it cross. Nothing in here depends on when or how long, so one process gets the same bytes from the
    same file.
    """

    format: int = RESULT_FORMAT
    fileloc: str
    dags: tuple[ParsedDag, ...] = ()
    import_errors: dict[str, str] = {}
    warnings: tuple[ParsedWarning, ...] = ()
    source: str | None = None


DECLARE_BUNDLE = rpc_subject(AREA, "declare-bundle")
GET_BUNDLE_STATE = rpc_subject(AREA, "get-bundle-state")
BUNDLE_REFRESHED = rpc_subject(AREA, "bundle-refreshed")
FILES_PRESENT = rpc_subject(AREA, "files-present")
FILE_PARSED = rpc_subject(AREA, "file-parsed")
DEACTIVATE_STALE = rpc_subject(AREA, "deactivate-stale")
GET_REQUESTS = rpc_subject(AREA, "get-requests")
FIND_DAG = rpc_subject(AREA, "find-dag")

ALL_BODIES: tuple[type[Body], ...] = (
    DeclareBundle,
    GetBundleState,
    BundleStateAnswer,
    BundleRefreshed,
    FilesPresent,
    FileParsed,
    FileRecorded,
    DeactivateStale,
    GetRequests,
    Requests,
    Noted,
    FindDag,
    DagFound,
)
ALL_RECORDS: tuple[type[msgspec.Struct], ...] = (BundleRecord,)
API_BODIES: tuple[type[msgspec.Struct], ...] = (
    ClaimBundlesRequest,
    ClaimBundlesResponse,
    DeclareBundleRequest,
    GetBundleStateRequest,
    BundleRefreshedRequest,
    FilesPresentRequest,
    FileParsedRequest,
    DeactivateStaleRequest,
    GetRequestsRequest,
)
"""What agents send and are answered, besides the answers above, which are passed on as they are."""
