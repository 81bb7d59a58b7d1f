"""The errors of the JetStream API: one table of number, HTTP-like code, public constant and text.

Clients compare the number, sometimes the code, and old ones the text, so all three equal the peer's.
Source: ADR-7, errors.json of nats-server v2.14.5.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class ErrorKind(NamedTuple):
    """One row of the table. `text` has `{name}` where a value is put in."""

    err_code: int
    code: int
    constant: str
    text: str


class ApiError(Exception):
    """A failure that is answered to a client.

    code: HTTP-like class (404 missing, 503 not here or not now); err_code: the number clients compare;
    description: the text with its values put in.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.err_code = err_code
        self.description = description

    def to_dict(self) -> dict[str, Any]:
        """The value of `error` in an answer, in the order of the wire."""
        return {"code": self.code, "err_code": self.err_code, "description": self.description}

    def __str__(self) -> str:
        return f"{self.description} ({self.err_code})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiError) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.code, self.err_code, self.description))


def problem(err_code: int, **values: object) -> ApiError:
    """The error with this number, its text filled from `values` (names as in the table).

    Raises: KeyError for a number outside the table or a value the text needs and did not get: both are mistakes of
    the caller, not of a client.
    """
    kind = ERRORS[err_code]
    return ApiError(kind.code, kind.err_code, kind.text.format(**values))


ERRORS: dict[int, ErrorKind] = {
    kind.err_code: kind
    for kind in (
        ErrorKind(10002, 400, "JSAccountResourcesExceededErr", "resource limits exceeded for account"),
        ErrorKind(10003, 400, "JSBadRequestErr", "bad request"),
        ErrorKind(10004, 503, "JSClusterIncompleteErr", "incomplete results"),
        ErrorKind(10005, 400, "JSClusterNoPeersErrF", "{err}"),
        ErrorKind(10006, 500, "JSClusterNotActiveErr", "JetStream not in clustered mode"),
        ErrorKind(10007, 500, "JSClusterNotAssignedErr", "JetStream cluster not assigned to this server"),
        ErrorKind(10008, 503, "JSClusterNotAvailErr", "JetStream system temporarily unavailable"),
        ErrorKind(10009, 500, "JSClusterNotLeaderErr", "JetStream cluster can not handle request"),
        ErrorKind(10010, 503, "JSClusterRequiredErr", "JetStream clustering support required"),
        ErrorKind(10011, 400, "JSClusterTagsErr", "tags placement not supported for operation"),
        ErrorKind(10012, 500, "JSConsumerCreateErrF", "{err}"),
        ErrorKind(10013, 400, "JSConsumerNameExistErr", "consumer name already in use"),
        ErrorKind(10014, 404, "JSConsumerNotFoundErr", "consumer not found"),
        ErrorKind(10015, 400, "JSSnapshotDeliverSubjectInvalidErr", "deliver subject not valid"),
        ErrorKind(
            10016,
            400,
            "JSConsumerDurableNameNotInSubjectErr",
            "consumer expected to be durable but no durable name set in subject",
        ),
        ErrorKind(
            10017,
            400,
            "JSConsumerDurableNameNotMatchSubjectErr",
            "consumer name in subject does not match durable name in request",
        ),
        ErrorKind(
            10018,
            400,
            "JSConsumerDurableNameNotSetErr",
            "consumer expected to be durable but a durable name was not set",
        ),
        ErrorKind(
            10019,
            400,
            "JSConsumerEphemeralWithDurableInSubjectErr",
            "consumer expected to be ephemeral but detected a durable name set in subject",
        ),
        ErrorKind(
            10020,
            400,
            "JSConsumerEphemeralWithDurableNameErr",
            "consumer expected to be ephemeral but a durable name was set in request",
        ),
        ErrorKind(
            10021,
            400,
            "JSStreamExternalApiOverlapErrF",
            "stream external api prefix {prefix} must not overlap with {subject}",
        ),
        ErrorKind(
            10022,
            400,
            "JSStreamExternalDelPrefixOverlapsErrF",
            "stream external delivery prefix {prefix} overlaps with stream subject {subject}",
        ),
        ErrorKind(10023, 503, "JSInsufficientResourcesErr", "insufficient resources"),
        ErrorKind(
            10024,
            400,
            "JSStreamInvalidExternalDeliverySubjErrF",
            "stream external delivery prefix {prefix} must not contain wildcards",
        ),
        ErrorKind(10025, 400, "JSInvalidJSONErr", "invalid JSON: {err}"),
        ErrorKind(10026, 400, "JSMaximumConsumersLimitErr", "maximum consumers limit reached"),
        ErrorKind(10027, 400, "JSMaximumStreamsLimitErr", "maximum number of streams reached"),
        ErrorKind(10028, 500, "JSMemoryResourcesExceededErr", "insufficient memory resources available"),
        ErrorKind(10029, 500, "JSMirrorConsumerSetupFailedErrF", "{err}"),
        ErrorKind(10030, 400, "JSMirrorMaxMessageSizeTooBigErr", "stream mirror must have max message size >= source"),
        ErrorKind(10031, 400, "JSMirrorWithSourcesErr", "stream mirrors can not also contain other sources"),
        ErrorKind(
            10032,
            400,
            "JSMirrorWithStartSeqAndTimeErr",
            "stream mirrors can not have both start seq and start time configured",
        ),
        ErrorKind(10033, 400, "JSMirrorWithSubjectFiltersErr", "stream mirrors can not contain filtered subjects"),
        ErrorKind(10034, 400, "JSMirrorWithSubjectsErr", "stream mirrors can not contain subjects"),
        ErrorKind(10035, 503, "JSNoAccountErr", "account not found"),
        ErrorKind(10036, 503, "JSClusterUnSupportFeatureErr", "not currently supported in clustered mode"),
        ErrorKind(10037, 404, "JSNoMessageFoundErr", "no message found"),
        ErrorKind(10038, 400, "JSNotEmptyRequestErr", "expected an empty request payload"),
        ErrorKind(10039, 503, "JSNotEnabledForAccountErr", "JetStream not enabled for account"),
        ErrorKind(10040, 400, "JSClusterPeerNotMemberErr", "peer not a member"),
        ErrorKind(10041, 500, "JSRaftGeneralErrF", "{err}"),
        ErrorKind(
            10042,
            500,
            "JSRestoreSubscribeFailedErrF",
            "JetStream unable to subscribe to restore snapshot {subject}: {err}",
        ),
        ErrorKind(10043, 400, "JSSequenceNotFoundErrF", "sequence {seq} not found"),
        ErrorKind(10044, 400, "JSClusterServerNotMemberErr", "server is not a member of the cluster"),
        ErrorKind(10045, 500, "JSSourceConsumerSetupFailedErrF", "{err}"),
        ErrorKind(10046, 400, "JSSourceMaxMessageSizeTooBigErr", "stream source must have max message size >= target"),
        ErrorKind(10047, 500, "JSStorageResourcesExceededErr", "insufficient storage resources available"),
        ErrorKind(10048, 500, "JSStreamAssignmentErrF", "{err}"),
        ErrorKind(10049, 500, "JSStreamCreateErrF", "{err}"),
        ErrorKind(10050, 500, "JSStreamDeleteErrF", "{err}"),
        ErrorKind(10051, 500, "JSStreamGeneralErrorF", "{err}"),
        ErrorKind(10052, 500, "JSStreamInvalidConfigF", "{err}"),
        ErrorKind(10053, 500, "JSStreamLimitsErrF", "{err}"),
        ErrorKind(10054, 400, "JSStreamMessageExceedsMaximumErr", "message size exceeds maximum allowed"),
        ErrorKind(10055, 400, "JSStreamMirrorNotUpdatableErr", "stream mirror configuration can not be updated"),
        ErrorKind(10056, 400, "JSStreamMismatchErr", "stream name in subject does not match request"),
        ErrorKind(10057, 500, "JSStreamMsgDeleteFailedF", "{err}"),
        ErrorKind(10058, 400, "JSStreamNameExistErr", "stream name already in use with a different configuration"),
        ErrorKind(10059, 404, "JSStreamNotFoundErr", "stream not found"),
        ErrorKind(10060, 400, "JSStreamNotMatchErr", "expected stream does not match"),
        ErrorKind(10061, 400, "JSStreamReplicasNotUpdatableErr", "Replicas configuration can not be updated"),
        ErrorKind(10062, 500, "JSStreamRestoreErrF", "restore failed: {err}"),
        ErrorKind(10063, 503, "JSStreamSequenceNotMatchErr", "expected stream sequence does not match"),
        ErrorKind(10064, 500, "JSStreamSnapshotErrF", "snapshot failed: {err}"),
        ErrorKind(10065, 400, "JSStreamSubjectOverlapErr", "subjects overlap with an existing stream"),
        ErrorKind(10066, 500, "JSStreamTemplateCreateErrF", "{err}"),
        ErrorKind(10067, 500, "JSStreamTemplateDeleteErrF", "{err}"),
        ErrorKind(10068, 404, "JSStreamTemplateNotFoundErr", "template not found"),
        ErrorKind(10069, 500, "JSStreamUpdateErrF", "{err}"),
        ErrorKind(10070, 400, "JSStreamWrongLastMsgIDErrF", "wrong last msg ID: {id}"),
        ErrorKind(10071, 400, "JSStreamWrongLastSequenceErrF", "wrong last sequence: {seq}"),
        ErrorKind(10072, 500, "JSTempStorageFailedErr", "JetStream unable to open temp storage for restore"),
        ErrorKind(10073, 400, "JSTemplateNameNotMatchSubjectErr", "template name in subject does not match request"),
        ErrorKind(10074, 500, "JSStreamReplicasNotSupportedErr", "replicas > 1 not supported in non-clustered mode"),
        ErrorKind(10075, 503, "JSPeerRemapErr", "peer remap failed"),
        ErrorKind(10076, 503, "JSNotEnabledErr", "JetStream not enabled"),
        ErrorKind(10077, 503, "JSStreamStoreFailedF", "{err}"),
        ErrorKind(10078, 400, "JSConsumerConfigRequiredErr", "consumer config required"),
        ErrorKind(10079, 400, "JSConsumerDeliverToWildcardsErr", "consumer deliver subject has wildcards"),
        ErrorKind(10080, 400, "JSConsumerPushMaxWaitingErr", "consumer in push mode can not set max waiting"),
        ErrorKind(10081, 400, "JSConsumerDeliverCycleErr", "consumer deliver subject forms a cycle"),
        ErrorKind(
            10082,
            400,
            "JSConsumerMaxPendingAckPolicyRequiredErr",
            "consumer requires ack policy for max ack pending",
        ),
        ErrorKind(10083, 400, "JSConsumerSmallHeartbeatErr", "consumer idle heartbeat needs to be >= 100ms"),
        ErrorKind(
            10084,
            400,
            "JSConsumerPullRequiresAckErr",
            "consumer in pull mode requires explicit ack policy on workqueue stream",
        ),
        ErrorKind(10085, 400, "JSConsumerPullNotDurableErr", "consumer in pull mode requires a durable name"),
        ErrorKind(10086, 400, "JSConsumerPullWithRateLimitErr", "consumer in pull mode can not have rate limit set"),
        ErrorKind(10087, 400, "JSConsumerMaxWaitingNegativeErr", "consumer max waiting needs to be positive"),
        ErrorKind(10088, 400, "JSConsumerHBRequiresPushErr", "consumer idle heartbeat requires a push based consumer"),
        ErrorKind(10089, 400, "JSConsumerFCRequiresPushErr", "consumer flow control requires a push based consumer"),
        ErrorKind(10090, 400, "JSConsumerDirectRequiresPushErr", "consumer direct requires a push based consumer"),
        ErrorKind(10091, 400, "JSConsumerDirectRequiresEphemeralErr", "consumer direct requires an ephemeral consumer"),
        ErrorKind(10092, 400, "JSConsumerOnMappedErr", "consumer direct on a mapped consumer"),
        ErrorKind(
            10093,
            400,
            "JSConsumerFilterNotSubsetErr",
            "consumer filter subject is not a valid subset of the interest subjects",
        ),
        ErrorKind(10094, 400, "JSConsumerInvalidPolicyErrF", "{err}"),
        ErrorKind(
            10095,
            400,
            "JSConsumerInvalidSamplingErrF",
            "failed to parse consumer sampling configuration: {err}",
        ),
        ErrorKind(10096, 500, "JSStreamInvalidErr", "stream not valid"),
        ErrorKind(10097, 400, "JSStreamHeaderExceedsMaximumErr", "header size exceeds maximum allowed of 64k"),
        ErrorKind(10098, 400, "JSConsumerWQRequiresExplicitAckErr", "workqueue stream requires explicit ack"),
        ErrorKind(
            10099,
            400,
            "JSConsumerWQMultipleUnfilteredErr",
            "multiple non-filtered consumers not allowed on workqueue stream",
        ),
        ErrorKind(10100, 400, "JSConsumerWQConsumerNotUniqueErr", "filtered consumer not unique on workqueue stream"),
        ErrorKind(
            10101,
            400,
            "JSConsumerWQConsumerNotDeliverAllErr",
            "consumer must be deliver all on workqueue stream",
        ),
        ErrorKind(10102, 400, "JSConsumerNameTooLongErrF", "consumer name is too long, maximum allowed is {max}"),
        ErrorKind(10103, 400, "JSConsumerBadDurableNameErr", "durable name can not contain '.', '*', '>'"),
        ErrorKind(10104, 500, "JSConsumerStoreFailedErrF", "error creating store for consumer: {err}"),
        ErrorKind(10105, 400, "JSConsumerExistingActiveErr", "consumer already exists and is still active"),
        ErrorKind(
            10106,
            400,
            "JSConsumerReplacementWithDifferentNameErr",
            "consumer replacement durable config not the same",
        ),
        ErrorKind(
            10107,
            400,
            "JSConsumerDescriptionTooLongErrF",
            "consumer description is too long, maximum allowed is {max}",
        ),
        ErrorKind(
            10108,
            400,
            "JSConsumerWithFlowControlNeedsHeartbeats",
            "consumer with flow control also needs heartbeats",
        ),
        ErrorKind(10109, 400, "JSStreamSealedErr", "invalid operation on sealed stream"),
        ErrorKind(10110, 500, "JSStreamPurgeFailedF", "{err}"),
        ErrorKind(10111, 500, "JSStreamRollupFailedF", "{err}"),
        ErrorKind(10112, 400, "JSConsumerInvalidDeliverSubject", "invalid push consumer deliver subject"),
        ErrorKind(10113, 400, "JSStreamMaxBytesRequired", "account requires a stream config to have max bytes set"),
        ErrorKind(10114, 400, "JSConsumerMaxRequestBatchNegativeErr", "consumer max request batch needs to be > 0"),
        ErrorKind(10115, 400, "JSConsumerMaxRequestExpiresTooSmall", "consumer max request expires needs to be >= 1ms"),
        ErrorKind(
            10116,
            400,
            "JSConsumerMaxDeliverBackoffErr",
            "max deliver is required to be > length of backoff values",
        ),
        ErrorKind(10117, 500, "JSStreamInfoMaxSubjectsErr", "subject details would exceed maximum allowed"),
        ErrorKind(10118, 500, "JSStreamOfflineErr", "stream is offline"),
        ErrorKind(10119, 500, "JSConsumerOfflineErr", "consumer is offline"),
        ErrorKind(10120, 400, "JSNoLimitsErr", "no JetStream default or applicable tiered limit present"),
        ErrorKind(
            10121,
            400,
            "JSConsumerMaxPendingAckExcessErrF",
            "consumer max ack pending exceeds system limit of {limit}",
        ),
        ErrorKind(
            10122,
            400,
            "JSStreamMaxStreamBytesExceeded",
            "stream max bytes exceeds account limit max stream bytes",
        ),
        ErrorKind(10123, 400, "JSStreamMoveAndScaleErr", "can not move and scale a stream in a single update"),
        ErrorKind(10124, 400, "JSStreamMoveInProgressF", "stream move already in progress: {msg}"),
        ErrorKind(
            10125,
            400,
            "JSConsumerMaxRequestBatchExceededF",
            "consumer max request batch exceeds server limit of {limit}",
        ),
        ErrorKind(10126, 400, "JSConsumerReplicasExceedsStream", "consumer config replica count exceeds parent stream"),
        ErrorKind(
            10127,
            400,
            "JSConsumerNameContainsPathSeparatorsErr",
            "Consumer name can not contain path separators",
        ),
        ErrorKind(10128, 400, "JSStreamNameContainsPathSeparatorsErr", "Stream name can not contain path separators"),
        ErrorKind(10129, 400, "JSStreamMoveNotInProgress", "stream move not in progress"),
        ErrorKind(10130, 400, "JSStreamNameExistRestoreFailedErr", "stream name already in use, cannot restore"),
        ErrorKind(
            10131,
            400,
            "JSConsumerCreateFilterSubjectMismatchErr",
            "Consumer create request did not match filtered subject from create subject",
        ),
        ErrorKind(
            10132,
            400,
            "JSConsumerCreateDurableAndNameMismatch",
            "Consumer Durable and Name have to be equal if both are provided",
        ),
        ErrorKind(10133, 400, "JSReplicasCountCannotBeNegative", "replicas count cannot be negative"),
        ErrorKind(
            10134,
            400,
            "JSConsumerReplicasShouldMatchStream",
            "consumer config replicas must match interest retention stream's replicas",
        ),
        ErrorKind(10135, 400, "JSConsumerMetadataLengthErrF", "consumer metadata exceeds maximum size of {limit}"),
        ErrorKind(
            10136,
            400,
            "JSConsumerDuplicateFilterSubjects",
            "consumer cannot have both FilterSubject and FilterSubjects specified",
        ),
        ErrorKind(
            10137,
            400,
            "JSConsumerMultipleFiltersNotAllowed",
            "consumer with multiple subject filters cannot use subject based API",
        ),
        ErrorKind(10138, 400, "JSConsumerOverlappingSubjectFilters", "consumer subject filters cannot overlap"),
        ErrorKind(10139, 400, "JSConsumerEmptyFilter", "consumer filter in FilterSubjects cannot be empty"),
        ErrorKind(10140, 400, "JSSourceDuplicateDetected", "duplicate source configuration detected"),
        ErrorKind(10141, 400, "JSSourceInvalidStreamName", "sourced stream name is invalid"),
        ErrorKind(10142, 400, "JSMirrorInvalidStreamName", "mirrored stream name is invalid"),
        ErrorKind(10143, 400, "JSMirrorWithFirstSeqErr", "stream mirrors can not have first sequence configured"),
        ErrorKind(
            10144,
            400,
            "JSSourceMultipleFiltersNotAllowed",
            "source with multiple subject transforms cannot also have a single subject filter",
        ),
        ErrorKind(10145, 400, "JSSourceInvalidSubjectFilter", "source transform source: {err}"),
        ErrorKind(10146, 400, "JSSourceInvalidTransformDestination", "source transform: {err}"),
        ErrorKind(10147, 400, "JSSourceOverlappingSubjectFilters", "source filters can not overlap"),
        ErrorKind(10148, 400, "JSConsumerAlreadyExists", "consumer already exists"),
        ErrorKind(10149, 400, "JSConsumerDoesNotExist", "consumer does not exist"),
        ErrorKind(
            10150,
            400,
            "JSMirrorMultipleFiltersNotAllowed",
            "mirror with multiple subject transforms cannot also have a single subject filter",
        ),
        ErrorKind(10151, 400, "JSMirrorInvalidSubjectFilter", "mirror transform source: {err}"),
        ErrorKind(10152, 400, "JSMirrorOverlappingSubjectFilters", "mirror subject filters can not overlap"),
        ErrorKind(
            10153,
            400,
            "JSConsumerInactiveThresholdExcess",
            "consumer inactive threshold exceeds system limit of {limit}",
        ),
        ErrorKind(10154, 400, "JSMirrorInvalidTransformDestination", "mirror transform: {err}"),
        ErrorKind(10155, 400, "JSStreamTransformInvalidSource", "stream transform source: {err}"),
        ErrorKind(10156, 400, "JSStreamTransformInvalidDestination", "stream transform: {err}"),
        ErrorKind(10157, 400, "JSPedanticErrF", "pedantic mode: {err}"),
        ErrorKind(10158, 409, "JSStreamDuplicateMessageConflict", "duplicate message id is in process"),
        ErrorKind(
            10159,
            400,
            "JSConsumerPriorityPolicyWithoutGroup",
            "Setting PriorityPolicy requires at least one PriorityGroup to be set",
        ),
        ErrorKind(
            10160,
            400,
            "JSConsumerInvalidPriorityGroupErr",
            "Provided priority group does not exist for this consumer",
        ),
        ErrorKind(10161, 400, "JSConsumerEmptyGroupName", "Group name cannot be an empty string"),
        ErrorKind(
            10162,
            400,
            "JSConsumerInvalidGroupNameErr",
            "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
        ),
        ErrorKind(
            10163,
            503,
            "JSStreamExpectedLastSeqPerSubjectNotReady",
            "expected last sequence per subject temporarily unavailable",
        ),
        ErrorKind(10164, 400, "JSStreamWrongLastSequenceConstantErr", "wrong last sequence"),
        ErrorKind(10165, 400, "JSMessageTTLInvalidErr", "invalid per-message TTL"),
        ErrorKind(10166, 400, "JSMessageTTLDisabledErr", "per-message TTL is disabled"),
        ErrorKind(10167, 429, "JSStreamTooManyRequests", "too many requests"),
        ErrorKind(10168, 400, "JSMessageIncrDisabledErr", "message counters is disabled"),
        ErrorKind(10169, 400, "JSMessageIncrMissingErr", "message counter increment is missing"),
        ErrorKind(10170, 400, "JSMessageIncrPayloadErr", "message counter has payload"),
        ErrorKind(10171, 400, "JSMessageIncrInvalidErr", "message counter increment is invalid"),
        ErrorKind(10172, 400, "JSMessageCounterBrokenErr", "message counter is broken"),
        ErrorKind(10173, 400, "JSMirrorWithCountersErr", "stream mirrors can not also calculate counters"),
        ErrorKind(10174, 400, "JSAtomicPublishDisabledErr", "atomic publish is disabled"),
        ErrorKind(10175, 400, "JSAtomicPublishMissingSeqErr", "atomic publish sequence is missing"),
        ErrorKind(10176, 400, "JSAtomicPublishIncompleteBatchErr", "atomic publish batch is incomplete"),
        ErrorKind(
            10177,
            400,
            "JSAtomicPublishUnsupportedHeaderBatchErr",
            "atomic publish unsupported header used: {header}",
        ),
        ErrorKind(
            10178,
            400,
            "JSConsumerPushWithPriorityGroupErr",
            "priority groups can not be used with push consumers",
        ),
        ErrorKind(10179, 400, "JSAtomicPublishInvalidBatchIDErr", "atomic publish batch ID is invalid"),
        ErrorKind(10180, 412, "JSStreamMinLastSeqErr", "min last sequence"),
        ErrorKind(10181, 400, "JSConsumerAckPolicyInvalidErr", "consumer ack policy invalid"),
        ErrorKind(10182, 400, "JSConsumerReplayPolicyInvalidErr", "consumer replay policy invalid"),
        ErrorKind(10183, 400, "JSConsumerAckWaitNegativeErr", "consumer ack wait needs to be positive"),
        ErrorKind(10184, 400, "JSConsumerBackOffNegativeErr", "consumer backoff needs to be positive"),
        ErrorKind(10185, 412, "JSRequiredApiLevelErr", "JetStream minimum api level required"),
        ErrorKind(10186, 400, "JSMirrorWithMsgSchedulesErr", "stream mirrors can not also schedule messages"),
        ErrorKind(10187, 400, "JSSourceWithMsgSchedulesErr", "stream source can not also schedule messages"),
        ErrorKind(10188, 400, "JSMessageSchedulesDisabledErr", "message schedules is disabled"),
        ErrorKind(10189, 400, "JSMessageSchedulesPatternInvalidErr", "message schedules pattern is invalid"),
        ErrorKind(10190, 400, "JSMessageSchedulesTargetInvalidErr", "message schedules target is invalid"),
        ErrorKind(10191, 400, "JSMessageSchedulesTTLInvalidErr", "message schedules invalid per-message TTL"),
        ErrorKind(10192, 400, "JSMessageSchedulesRollupInvalidErr", "message schedules invalid rollup"),
        ErrorKind(
            10193,
            400,
            "JSStreamExpectedLastSeqPerSubjectInvalid",
            "missing sequence for expected last sequence per subject",
        ),
        ErrorKind(10194, 500, "JSStreamOfflineReasonErrF", "stream is offline: {err}"),
        ErrorKind(10195, 500, "JSConsumerOfflineReasonErrF", "consumer is offline: {err}"),
        ErrorKind(
            10196,
            400,
            "JSConsumerPriorityGroupWithPolicyNone",
            "consumer can not have priority groups when policy is none",
        ),
        ErrorKind(
            10197,
            400,
            "JSConsumerPinnedTTLWithoutPriorityPolicyNone",
            "PinnedTTL cannot be set when PriorityPolicy is none",
        ),
        ErrorKind(10198, 400, "JSMirrorWithAtomicPublishErr", "stream mirrors can not also use atomic publishing"),
        ErrorKind(10199, 400, "JSAtomicPublishTooLargeBatchErrF", "atomic publish batch is too large: {size}"),
        ErrorKind(10200, 400, "JSAtomicPublishInvalidBatchCommitErr", "atomic publish batch commit is invalid"),
        ErrorKind(
            10201,
            400,
            "JSAtomicPublishContainsDuplicateMessageErr",
            "atomic publish batch contains duplicate message id",
        ),
        ErrorKind(10202, 400, "JSClusterServerMemberChangeInflightErr", "cluster member change is in progress"),
        ErrorKind(10203, 400, "JSMessageSchedulesSourceInvalidErr", "message schedules source is invalid"),
        ErrorKind(10204, 400, "JSConsumerInvalidResetErr", "invalid reset: {err}"),
        ErrorKind(10205, 400, "JSBatchPublishDisabledErr", "batch publish is disabled"),
        ErrorKind(10206, 400, "JSBatchPublishInvalidPatternErr", "batch publish pattern is invalid"),
        ErrorKind(10207, 400, "JSBatchPublishInvalidBatchIDErr", "batch publish ID is invalid"),
        ErrorKind(10208, 400, "JSBatchPublishUnknownBatchIDErr", "batch publish ID unknown"),
        ErrorKind(10209, 400, "JSMirrorWithBatchPublishErr", "stream mirrors can not also use batch publishing"),
        ErrorKind(10210, 429, "JSAtomicPublishTooManyInflight", "atomic publish too many inflight"),
        ErrorKind(10211, 429, "JSBatchPublishTooManyInflight", "batch publish too many inflight"),
        ErrorKind(10212, 400, "JSMessageSchedulesSchedulerInvalidErr", "message schedules invalid scheduler"),
        ErrorKind(10213, 400, "JSMirrorDurableConsumerCfgInvalid", "stream mirror consumer config is invalid"),
        ErrorKind(
            10214,
            400,
            "JSMirrorConsumerRequiresAckFCErr",
            "stream mirror consumer requires flow control ack policy",
        ),
        ErrorKind(10215, 400, "JSSourceDurableConsumerCfgInvalid", "stream source consumer config is invalid"),
        ErrorKind(10216, 400, "JSSourceDurableConsumerDuplicateDetected", "duplicate stream source consumer detected"),
        ErrorKind(
            10217,
            400,
            "JSSourceConsumerRequiresAckFCErr",
            "stream source consumer requires flow control ack policy",
        ),
        ErrorKind(
            10218,
            400,
            "JSConsumerAckFCRequiresPushErr",
            "flow control ack policy requires a push based consumer",
        ),
        ErrorKind(10219, 400, "JSConsumerAckFCRequiresFCErr", "flow control ack policy requires flow control"),
        ErrorKind(
            10220,
            400,
            "JSConsumerAckFCRequiresMaxAckPendingErr",
            "flow control ack policy requires max ack pending",
        ),
        ErrorKind(10221, 400, "JSConsumerAckFCRequiresNoAckWaitErr", "flow control ack policy requires unset ack wait"),
        ErrorKind(
            10222,
            400,
            "JSConsumerAckFCRequiresNoMaxDeliverErr",
            "flow control ack policy requires unset max deliver",
        ),
        ErrorKind(10223, 400, "JSMessageSchedulesTimeZoneInvalidErr", "message schedules time zone is invalid"),
    )
}
