"""What edgeeff measures and makes, as frozen dataclasses that are written and read as JSON records.

Times are seconds and sizes are bytes; field names end in `_s` and `_bytes` to say so. A record names its schema and
that schema's version; a reader takes every version up to its own and refuses newer ones.

History of the schema versions:
  conversion  1  first
  conversion  2  what was tried to keep the accuracy of int8
  conversion  3  the goal of mixed precision, its points and trials, and where they were timed; how a network was
                 fine-tuned; what the calibration images are like
  conversion  4  what the Edge TPU compiler would make of the file
  profile     1  first
  profile     2  verdict, target, what the board did, p99, dispersion, outliers, figures of each process, PSS,
                 throughput, minutes, end-to-end; the delegate is the one that was used
  profile     3  p90 and p99 of every process
  profile     4  the Edge TPU: its link, its library, its temperature, what sending the parameters took
  demo        1  first
  probe       1  first
  probe       2  Edge TPU: the speed of PCIe, device files on USB, where it slows down; libedgetpu's runtime version and
                 why it cannot be loaded
  evaluation  1  first
  pick        1  first
  prediction  1  first
  audit       1  first
  diagnosis   1  first
  compilation 1  first
  compilation 2  an estimate of the latency; what was foreseen of each file, and how far the compiler agrees
"""

from edgeeff.results.audit import (
    AuditRecord,
    Growth,
    LoneImage,
    RangeAudit,
    SetSummary,
    TensorStability,
)
from edgeeff.results.compilation import (
    CompilationRecord,
    Compiled,
    CompiledFile,
    CompilerFailure,
    CompilerLog,
    CompilerSummary,
    CpuShare,
    Disagreement,
    EdgeTpuEstimate,
    EdgeTpuExecutable,
    EdgeTpuOperator,
    EdgeTpuTime,
    FileVerdict,
    Forecast,
    ForecastCheck,
    ForeseenOperators,
    OperatorStatus,
    OperatorVerdict,
)
from edgeeff.results.conversion import (
    Agreement,
    Attempt,
    CalibrationUse,
    Check,
    ConversionRecord,
    Fidelity,
    Finetuning,
    Goal,
    Mixed,
    MixedPoint,
    MixedTrial,
    Recovery,
    TimedOn,
)
from edgeeff.results.demo import DemoPhotograph, DemoRecord
from edgeeff.results.diagnosis import DiagnosisRecord, TensorFault, Test
from edgeeff.results.document import RECORDS, read_record, to_dict, to_json
from edgeeff.results.evaluation import (
    ClassMetrics,
    ClassResult,
    DataUse,
    Difference,
    Divergence,
    EvaluationComparison,
    EvaluationRecord,
    EvaluationTiming,
    Finding,
    Flip,
    GateResult,
    ImageOutcomes,
    Kernels,
    Leak,
    Metrics,
    Outputs,
    Paired,
    Preprocessing,
)
from edgeeff.results.pick import PickCandidate, PickChange, PickLatency, PickLimits, PickRecord, PredictionRecord
from edgeeff.results.probe import (
    BoardPython,
    BoardState,
    CpuFrequency,
    Disk,
    EdgeTpu,
    EdgeTpuLibrary,
    FoundRuntime,
    Memory,
    OperatingSystem,
    ProbeRecord,
    Processor,
    Rail,
    Reason,
    Throttling,
    Verdict,
    Zone,
)
from edgeeff.results.profile import (
    BlockLatency,
    BoardSummary,
    Comparison,
    EdgeTpuUse,
    EndToEnd,
    FleetSummary,
    Latency,
    Minute,
    ProfileRecord,
)
from edgeeff.results.record import Device, ModelFile, Record, Runtime, TensorContract, this_device, versions
from edgeeff.results.report import ReportedResult, WrittenReport

__all__ = [
    "RECORDS",
    "Agreement",
    "Attempt",
    "AuditRecord",
    "BlockLatency",
    "BoardPython",
    "BoardState",
    "BoardSummary",
    "CalibrationUse",
    "Check",
    "ClassMetrics",
    "ClassResult",
    "Comparison",
    "CompilationRecord",
    "Compiled",
    "CompiledFile",
    "CompilerFailure",
    "CompilerLog",
    "CompilerSummary",
    "ConversionRecord",
    "CpuFrequency",
    "CpuShare",
    "DataUse",
    "DemoPhotograph",
    "DemoRecord",
    "Device",
    "DiagnosisRecord",
    "Difference",
    "Disagreement",
    "Disk",
    "Divergence",
    "EdgeTpu",
    "EdgeTpuEstimate",
    "EdgeTpuExecutable",
    "EdgeTpuLibrary",
    "EdgeTpuOperator",
    "EdgeTpuTime",
    "EdgeTpuUse",
    "EndToEnd",
    "EvaluationComparison",
    "EvaluationRecord",
    "EvaluationTiming",
    "Fidelity",
    "FileVerdict",
    "Finding",
    "Finetuning",
    "FleetSummary",
    "Flip",
    "Forecast",
    "ForecastCheck",
    "ForeseenOperators",
    "FoundRuntime",
    "GateResult",
    "Goal",
    "Growth",
    "ImageOutcomes",
    "Kernels",
    "Latency",
    "Leak",
    "LoneImage",
    "Memory",
    "Metrics",
    "Minute",
    "Mixed",
    "MixedPoint",
    "MixedTrial",
    "ModelFile",
    "OperatingSystem",
    "OperatorStatus",
    "OperatorVerdict",
    "Outputs",
    "Paired",
    "PickCandidate",
    "PickChange",
    "PickLatency",
    "PickLimits",
    "PickRecord",
    "PredictionRecord",
    "Preprocessing",
    "ProbeRecord",
    "Processor",
    "ProfileRecord",
    "Rail",
    "RangeAudit",
    "Reason",
    "Record",
    "Recovery",
    "ReportedResult",
    "Runtime",
    "SetSummary",
    "TensorContract",
    "TensorFault",
    "TensorStability",
    "Test",
    "Throttling",
    "TimedOn",
    "Verdict",
    "WrittenReport",
    "Zone",
    "read_record",
    "this_device",
    "to_dict",
    "to_json",
    "versions",
]
