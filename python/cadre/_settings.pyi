"""The keywords of LLM(...), EngineArgs(...) and AsyncEngineArgs(...). Written by tools/make_settings_stub.py."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

class Settings(TypedDict, total=False):
    tokenizer: str | PathLike[str] | None
    """Folder or hub name of another tokenizer; the model's own if unset."""
    tokenizer_revision: str | PathLike[str] | None
    """Revision of a tokenizer given by hub name."""
    revision: str | PathLike[str] | None
    """Branch, tag or commit of a model given by hub name; main if unset."""
    served_model_name: Sequence[str] | str | None
    """Names that requests may use; the first is used in answers. The model as written if unset."""
    dtype: str | PathLike[str] | None
    """Arithmetic: bfloat16 (weights and matmul inputs bf16, sums f32) or float32. auto follows the checkpoint; a float16 checkpoint runs in bfloat16."""
    seed: int | str | None
    """Seed for requests that bring none of their own."""
    max_model_len: int | str | None
    """Longest prompt plus answer in tokens: 4096, 4k, 4K, or auto for the longest that fits in memory. The model's own limit if unset."""
    skip_tokenizer_init: bool | None
    """Load no tokenizer: prompts and answers are token ids only."""
    max_logprobs: int | str | None
    """Most log probabilities that a request may ask for at each token; -1: no limit."""
    logprobs_mode: str | PathLike[str] | None
    """What the logprobs of generated tokens are: of the model's own distribution (raw), or of the one that was drawn from, after penalties, temperature, min_p, top_k and top_p (processed); or the logits of either."""
    hf_overrides: Mapping[str, Any] | str | None
    """Members laid over the checkpoint's config.json."""
    generation_config: str | PathLike[str] | None
    """Where default sampling parameters come from: auto (the model's generation_config.json), vllm (none), or a folder."""
    override_generation_config: Mapping[str, Any] | str | None
    """Members laid over the default sampling parameters."""
    runner: str | PathLike[str] | None
    """What the model is used for."""
    convert: str | PathLike[str] | None
    """Conversion to another kind of model."""
    tokenizer_mode: str | PathLike[str] | None
    """How tokenizer files are read: tokenizer.json."""
    config_format: str | PathLike[str] | None
    """How the model's configuration is read: config.json."""
    model_impl: str | PathLike[str] | None
    """No effect here: No Python is run and no code of a model is loaded: the architectures are built in."""
    trust_remote_code: bool | None
    """No effect here: No Python is run and no code of a model is loaded: the architectures are built in."""
    code_revision: str | PathLike[str] | None
    """No effect here: No Python is run and no code of a model is loaded: the architectures are built in."""
    hf_token: str | PathLike[str] | None
    """No effect here: Nothing is downloaded: models are folders or lie in the local Hugging Face cache."""
    hf_config_path: str | PathLike[str] | None
    """Not built: config.json is read from the model's folder; use --hf-overrides to change members of it."""
    model_class_overrides: Mapping[str, Any] | str | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    allowed_local_media_path: str | PathLike[str] | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    allowed_media_domains: Sequence[str] | str | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    quantization: str | PathLike[str] | None
    """fp8: experts and dense linear layers of a bf16, f16 or f32 checkpoint become 8-bit floats while it is loaded. An fp8 checkpoint is known from its config.json (methods fp8 and compressed-tensors); what is said here must then be the same."""
    quantization_config: Mapping[str, Any] | str | None
    """Not built: The scales' kind follows from the checkpoint; use --quantization fp8 alone."""
    allow_deprecated_quantization: bool | None
    """No effect here: No deprecated method is built."""
    enforce_eager: bool | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    enable_return_routed_experts: bool | None
    """Answers carry routed_experts: which experts each token had in each layer."""
    return_sampling_mask: bool | None
    """Not built: Returning the sampling mask is not built; leave the flag out."""
    use_fp64_gumbel: bool | None
    """No effect here: Tokens are drawn from a counter-based generator with 53 bits, the same on every layout."""
    enable_trace_replay: bool | None
    """Not built: Replaying traces is not built; leave the flag out."""
    disable_sliding_window: bool | None
    """Not built: Sliding-window layers always keep their window; use --max-model-len to stay below it."""
    disable_cascade_attn: bool | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    enable_prompt_embeds: bool | None
    """Not built: Prompts as embeddings are not built; send text or token ids."""
    pooler_config: Mapping[str, Any] | str | None
    """Not built: Pooling, embedding and draft models are not built; Cadre generates text."""
    enable_sleep_mode: bool | None
    """Not built: Sleeping and waking up are not built; /pause stops a server's steps and /update_weights replaces its weights."""
    sleep_mode_offload_cudagraph: bool | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    sleep_preserve_parameter_names: Sequence[str] | str | None
    """Not built: Sleeping and waking up are not built; /pause stops a server's steps and /update_weights replaces its weights."""
    enable_cumem_allocator: bool | None
    """No effect here: There is no CUDA memory here."""
    enable_nccl_comm_suspend: bool | None
    """No effect here: Ranks talk over shared memory in a host and over TCP or UCX between hosts; no NCCL or GPU transport is used."""
    logits_processors: Sequence[str] | str | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    io_processor_plugin: str | PathLike[str] | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    renderer_num_workers: int | str | None
    """No effect here: Chat templates and tokenizing run on the server's own threads."""
    load_format: str | PathLike[str] | None
    """How weights are read: safetensors."""
    download_dir: str | PathLike[str] | None
    """Folder of the Hugging Face cache in which hub names are looked up. Nothing is downloaded."""
    use_tqdm_on_load: bool | None
    """Show a progress bar while weights are read."""
    safetensors_load_strategy: str | PathLike[str] | None
    """No effect here: safetensors are read in parallel straight into their final place, always in the same way."""
    safetensors_prefetch_num_threads: int | str | None
    """No effect here: safetensors are read in parallel straight into their final place, always in the same way."""
    safetensors_prefetch_block_size: int | str | None
    """No effect here: safetensors are read in parallel straight into their final place, always in the same way."""
    model_loader_extra_config: Mapping[str, Any] | str | None
    """No effect here: safetensors are read in parallel straight into their final place, always in the same way."""
    ignore_patterns: Sequence[str] | str | None
    """No effect here: Nothing is downloaded: models are folders or lie in the local Hugging Face cache."""
    pt_load_map_location: Mapping[str, Any] | str | None
    """No effect here: Only safetensors are read, never pickled PyTorch files."""
    tensor_parallel_size: int | str | None
    """Ranks that split each layer between them."""
    data_parallel_size: int | str | None
    """Replicas of the attention layers; requests are spread over them. With a mixture of experts they run in lockstep and share the experts."""
    enable_expert_parallel: bool | None
    """Each rank holds whole experts (EP size = TP x DP) instead of a slice of every expert."""
    all2all_backend: str | PathLike[str] | None
    """How tokens travel to their experts and back."""
    expert_placement_strategy: str | PathLike[str] | None
    """Which experts a rank holds: linear (a run of neighbours) or round_robin (every EP-size-th one)."""
    distributed_timeout_seconds: int | str | None
    """Longest wait for another rank within a step before the wait fails and names who is missing."""
    cpu_distributed_timeout_seconds: int | str | None
    """Longest wait for another rank within a step before the wait fails and names who is missing."""
    distributed_executor_backend: str | PathLike[str] | None
    """How ranks are run: as processes of this host."""
    data_parallel_backend: str | PathLike[str] | None
    """How DP ranks are run: as processes of this host."""
    pipeline_parallel_size: int | str | None
    """Not built: Pipeline parallelism is not built; use --tensor-parallel-size, --data-parallel-size and --enable-expert-parallel."""
    prefill_context_parallel_size: int | str | None
    """Not built: Context parallelism is not built; leave the flag out."""
    decode_context_parallel_size: int | str | None
    """Not built: Context parallelism is not built; leave the flag out."""
    dcp_comm_backend: str | PathLike[str] | None
    """No effect here: Context parallelism is not built; leave the flag out."""
    dcp_q_replicate: bool | None
    """No effect here: Context parallelism is not built; leave the flag out."""
    dcp_kv_cache_interleave_size: int | str | None
    """No effect here: Context parallelism is not built; leave the flag out."""
    cp_kv_cache_interleave_size: int | str | None
    """No effect here: Context parallelism is not built; leave the flag out."""
    headless: bool | None
    """This node only computes: the first node answers all requests."""
    data_parallel_size_local: int | str | None
    """DP ranks of this node; all that are left if unset."""
    data_parallel_rank: int | str | None
    """The one DP rank of this node, which answers its own requests (external load balancing)."""
    data_parallel_start_rank: int | str | None
    """First DP rank of this node; with --data-parallel-size-local and without --headless the node answers requests for its own ranks (hybrid load balancing)."""
    data_parallel_address: str | PathLike[str] | None
    """Host or address of the first node, where all nodes meet; 127.0.0.1 if unset."""
    data_parallel_rpc_port: int | str | None
    """Port there; 29550 if unset."""
    data_parallel_hybrid_lb: bool | None
    """Every node answers requests and spreads them over its own ranks."""
    data_parallel_external_lb: bool | None
    """Every DP rank has a server of its own; something in front of them spreads requests."""
    data_parallel_multi_port_external_lb: bool | None
    """Not built: Start one cadre serve a rank with --data-parallel-rank and --port."""
    master_addr: str | PathLike[str] | None
    """With --nnodes: host or address of node 0, where all nodes meet."""
    master_port: int | str | None
    """With --nnodes: port there."""
    nnodes: int | str | None
    """Nodes over which all ranks are spread, each a contiguous range."""
    node_rank: int | str | None
    """This node's number; nodes other than 0 answer no requests."""
    enable_eplb: bool | None
    """Balance experts over the ranks: copies of experts, placed by load. See docs/eplb.md."""
    eplb_config: Mapping[str, Any] | str | None
    """How: a JSON object; its members are listed under "Members of JSON options"."""
    enable_elastic_ep: bool | None
    """Not built: Surviving a lost rank comes later; a rank that dies ends the deployment and is named."""
    elastic_ep_max_dp_size: int | str | None
    """Not built: Surviving a lost rank comes later; a rank that dies ends the deployment and is named."""
    enable_fault_tolerance: bool | None
    """Not built: Surviving a lost rank comes later; a rank that dies ends the deployment and is named."""
    fault_tolerance_config: Mapping[str, Any] | str | None
    """Not built: Surviving a lost rank comes later; a rank that dies ends the deployment and is named."""
    enable_ep_weight_filter: bool | None
    """No effect here: A rank always reads only its own experts from disk."""
    enable_dbo: bool | None
    """No effect here: A step is not split into two half batches here."""
    ubatch_size: int | str | None
    """No effect here: A step is not split into two half batches here."""
    dbo_decode_token_threshold: int | str | None
    """No effect here: A step is not split into two half batches here."""
    dbo_prefill_token_threshold: int | str | None
    """No effect here: A step is not split into two half batches here."""
    dp_sync_interval: int | str | None
    """No effect here: Ranks agree before every step."""
    disable_nccl_for_dp_synchronization: bool | None
    """No effect here: Ranks talk over shared memory in a host and over TCP or UCX between hosts; no NCCL or GPU transport is used."""
    disable_custom_all_reduce: bool | None
    """No effect here: Ranks talk over shared memory in a host and over TCP or UCX between hosts; no NCCL or GPU transport is used."""
    enable_shm_tensor_arena: bool | None
    """No effect here: Ranks talk over shared memory in a host and over TCP or UCX between hosts; no NCCL or GPU transport is used."""
    enable_batch_sharded_sampling: bool | None
    """No effect here: Each DP replica samples its own requests on one rank."""
    enable_hc_sp: bool | None
    """Not built: Sequence parallelism of hyper-connections is not built; leave the flag out."""
    numa_bind: bool | None
    """Not built: Binding by NUMA node comes later; bind CPUs with VLLM_CPU_OMP_THREADS_BIND."""
    numa_bind_nodes: Sequence[str] | str | None
    """Not built: Binding by NUMA node comes later; bind CPUs with VLLM_CPU_OMP_THREADS_BIND."""
    numa_bind_cpus: Sequence[str] | str | None
    """Not built: Binding by NUMA node comes later; bind CPUs with VLLM_CPU_OMP_THREADS_BIND."""
    device_ids: str | PathLike[str] | None
    """No effect here: This build runs on the CPU."""
    max_parallel_loading_workers: int | str | None
    """No effect here: Ranks load in parallel, each its own shard."""
    ray_workers_use_nsight: bool | None
    """No effect here: Ray is not used: ranks are processes that cadre serve starts and watches."""
    worker_cls: str | PathLike[str] | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    worker_extension_cls: str | PathLike[str] | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    data_parallel_supervisor_port: int | str | None
    """No effect here: cadre serve watches its ranks itself."""
    dp_supervisor_probe_interval_s: float | None
    """No effect here: cadre serve watches its ranks itself."""
    dp_supervisor_probe_timeout_s: float | None
    """No effect here: cadre serve watches its ranks itself."""
    dp_supervisor_probe_failure_threshold: int | str | None
    """No effect here: cadre serve watches its ranks itself."""
    block_size: int | str | None
    """Tokens in one block of the KV cache."""
    gpu_memory_utilization: float | None
    """Share of the host's (or cgroup's) memory that all local ranks together may use for weights, buffers and KV cache."""
    device_memory_utilization: float | None
    """Share of the host's (or cgroup's) memory that all local ranks together may use for weights, buffers and KV cache."""
    kv_cache_memory_bytes: int | str | None
    """KV cache of each rank in bytes (4G, 500m, ...); then --gpu-memory-utilization does not size it."""
    num_gpu_blocks_override: int | str | None
    """KV blocks of each rank, whatever the memory; for tests."""
    enable_prefix_caching: bool | None
    """Keep blocks of past prompts and reuse them when a new prompt begins alike."""
    kv_cache_dtype: str | PathLike[str] | None
    """Type of the KV cache: auto (bfloat16, or float32 with --dtype float32) or bfloat16."""
    prefix_caching_hash_algo: str | PathLike[str] | None
    """No effect here: Prefix blocks are found by one built-in hash."""
    prefix_cache_retention_interval: int | str | None
    """Not built: Blocks leave the prefix cache by least recent use only."""
    prefix_match_unit: int | str | None
    """No effect here: Prefixes are matched by whole blocks."""
    kv_cache_dtype_skip_layers: Sequence[str] | str | None
    """Not built: All layers keep one KV type."""
    kv_sharing_fast_prefill: bool | None
    """No effect here: No built architecture shares KV between layers."""
    swa_bounded_replay: bool | None
    """No effect here: Prefix hits of sliding-window layers are always whole."""
    mamba_cache_dtype: str | PathLike[str] | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    mamba_ssm_cache_dtype: str | PathLike[str] | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    mamba_block_size: int | str | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    mamba_cache_mode: str | PathLike[str] | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    enable_mamba_shared_prefix_checkpoint: bool | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    replayssm_buffer_len: int | str | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    use_replayssm: bool | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    kv_offloading_size: float | None
    """Not built: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    kv_offloading_backend: str | PathLike[str] | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    swap_space: float | None
    """No effect here: Preempted requests are computed again; nothing is swapped."""
    offload_backend: str | PathLike[str] | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    cpu_offload_gb: float | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    cpu_offload_params: Sequence[str] | str | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    offload_group_size: int | str | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    offload_num_in_group: int | str | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    offload_prefetch_step: int | str | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    offload_params: Sequence[str] | str | None
    """No effect here: Weights and KV blocks lie in the host's memory already; there is nothing to offload to."""
    max_num_seqs: int | str | None
    """Most requests that run at once, per DP rank."""
    max_num_batched_tokens: int | str | None
    """Most tokens in one step, per DP rank."""
    max_num_queued_reqs: int | str | None
    """Requests that may wait, per DP rank, before new ones get 429; a generous built-in limit if unset."""
    enable_chunked_prefill: bool | None
    """Split long prompts over steps so that running requests go on."""
    scheduling_policy: str | PathLike[str] | None
    """Who runs first, and who gives way when blocks run out: fcfs (first come, first served) or priority (the request's priority field, lower first; equal ones by arrival)."""
    max_num_scheduled_tokens: int | str | None
    """Not built: Use --max-num-batched-tokens."""
    max_num_active_seqs: int | str | None
    """Not built: Use --max-num-seqs."""
    max_num_queued_tokens: int | str | None
    """Not built: Use --max-num-queued-reqs."""
    long_prefill_token_threshold: int | str | None
    """Most prompt tokens of one request in a step, so that a long prompt leaves room for others; 0: no limit but --max-num-batched-tokens."""
    long_prefill_token_threshold_adaptive: bool | None
    """Not built: Chunks of prefill are bounded by --max-num-batched-tokens."""
    disable_chunked_mm_input: bool | None
    """No effect here: It tunes images, audio and video, which are not built."""
    scheduler_cls: str | PathLike[str] | None
    """Not built: No Python is run and no code of a model is loaded: the architectures are built in."""
    scheduler_reserve_full_isl: bool | None
    """No effect here: A request starts when blocks for all its known tokens are free."""
    watermark: float | None
    """Not built: No share of the KV blocks is held back."""
    prefill_schedule_interval: int | str | None
    """Not built: New prompts may start at every step."""
    disable_hybrid_kv_cache_manager: bool | None
    """No effect here: There is one KV cache manager."""
    async_scheduling: bool | None
    """No effect here: The scheduler is built in."""
    stream_interval: int | str | None
    """Tokens between two events of a stream; the first and the last one are sent at once. A request's own stream_interval wins."""
    num_scheduler_steps: int | str | None
    """No effect here: The scheduler is built in."""
    threads: int | str | None
    """Worker threads of each rank. If unset: the CPUs that VLLM_CPU_OMP_THREADS_BIND gives it."""
    prefill_all2all_backend: str | PathLike[str] | None
    """An --all2all-backend for steps with prompt rows; --all2all-backend if unset."""
    decode_all2all_backend: str | PathLike[str] | None
    """An --all2all-backend for steps in which no rank has more than one token of a sequence; --all2all-backend if unset."""
    all2all_fp8_dispatch: bool | None
    """deepep_low_latency: rows travel to their experts as fp8 (e4m3, a scale per 128 channels), half the bytes of bfloat16. A value is off by up to 1/16 of itself; see docs/exchange.md."""
    eplb_record: str | PathLike[str] | None
    """Rank 0 keeps the load of the window in this file, for --eplb-init and `cadre inspect --load`."""
    eplb_init: str | PathLike[str] | None
    """A recorded load: experts are placed by it at the start, so that a restart begins balanced."""
    fabric_transport: str | PathLike[str] | None
    """How nodes exchange rows: tcp, ucx, or auto, the better one of those that all nodes have (ucx where there is RDMA)."""
    fabric_connections: int | str | None
    """TCP connections between two nodes for each network address; large messages are split over them."""
    weight_update_copy: bool | None
    """Keep the old weights in memory while /update_weights writes new ones, so that a failure in the middle restores them. Takes the weights' memory a second time; without it the last folder is read again."""
    log_level: str | PathLike[str] | None
    """What is logged: trace, debug, info, warning, error; VLLM_LOGGING_LEVEL or info if unset."""
    show_hidden_metrics_for_version: str | PathLike[str] | None
    """No effect here: The metrics are those listed in the documentation, always on."""
    otlp_traces_endpoint: str | PathLike[str] | None
    """Not built: Traces are not built; see /metrics and the log."""
    collect_detailed_traces: Sequence[str] | str | None
    """Not built: Traces are not built; see /metrics and the log."""
    per_request_spec_decode_metrics: str | PathLike[str] | None
    """No effect here: Speculative decoding is not built; leave the flag out."""
    kv_cache_metrics: bool | None
    """Not built: Metrics of KV block lifetimes are not built."""
    kv_cache_metrics_sample: float | None
    """No effect here: Metrics of KV block lifetimes are not built."""
    custom_histogram_buckets: Mapping[str, Any] | str | None
    """Not built: Histograms keep vLLM's own buckets."""
    cudagraph_metrics: bool | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    enable_layerwise_nvtx_tracing: bool | None
    """No effect here: There is no GPU profiler here."""
    enable_mfu_metrics: bool | None
    """Not built: cadre bench prints each result beside the machine's floor instead."""
    enable_logging_iteration_details: bool | None
    """Not built: Use --log-level trace."""
    jit_monitor_mode: str | PathLike[str] | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    jit_monitor_verbose: bool | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    attention_backend: str | PathLike[str] | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    attention_config: Mapping[str, Any] | str | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    mamba_backend: str | PathLike[str] | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    mamba_ssu_algorithm: str | PathLike[str] | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    enable_mamba_cache_stochastic_rounding: bool | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    mamba_cache_philox_rounds: int | str | None
    """No effect here: Models with Mamba or linear-attention layers are not built."""
    compilation_config: Mapping[str, Any] | str | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    optimization_level: str | PathLike[str] | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    performance_mode: str | PathLike[str] | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    cudagraph_capture_sizes: Sequence[str] | str | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    max_cudagraph_capture_size: int | str | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    max_seq_len_to_capture: int | str | None
    """No effect here: There are no CUDA graphs and no compiler here: every step runs eagerly on the CPU."""
    kernel_config: Mapping[str, Any] | str | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    ir_op_priority: Mapping[str, Any] | str | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    enable_flashinfer_autotune: bool | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    moe_backend: str | PathLike[str] | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    linear_backend: str | PathLike[str] | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    sparse_indexer_topk_backend: str | PathLike[str] | None
    """No effect here: It chooses among GPU kernels; here the kernels follow the CPU's instruction set (CADRE_ISA)."""
    device: str | PathLike[str] | None
    """No effect here: This build runs on the CPU."""
    language_model_only: bool | None
    """No effect here: Cadre serves language models only."""
    limit_mm_per_prompt: Mapping[str, Any] | str | None
    """No effect here: It tunes images, audio and video, which are not built."""
    enable_mm_embeds: bool | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    media_io_kwargs: Mapping[str, Any] | str | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_processor_kwargs: Mapping[str, Any] | str | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_processor_cache_gb: float | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_processor_cache_type: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_hasher_algorithm: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_shm_cache_max_object_size_mb: int | str | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_only: bool | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    mm_encoder_tp_mode: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_attn_backend: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_attn_dtype: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_fp8_scale_path: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_fp8_scale_save_path: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_encoder_fp8_scale_save_margin: float | None
    """No effect here: It tunes images, audio and video, which are not built."""
    interleave_mm_strings: bool | None
    """No effect here: It tunes images, audio and video, which are not built."""
    skip_mm_profiling: bool | None
    """No effect here: It tunes images, audio and video, which are not built."""
    video_pruning_rate: float | None
    """No effect here: It tunes images, audio and video, which are not built."""
    video_pruning_method: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_tensor_ipc: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_processor_device: str | PathLike[str] | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_ipc_gpu_memory_gb: float | None
    """No effect here: It tunes images, audio and video, which are not built."""
    mm_device_do_normalize: bool | None
    """No effect here: It tunes images, audio and video, which are not built."""
    enable_lora: bool | None
    """Serve LoRA adapters on attention and dense layers beside the model; see docs/lora.md."""
    max_loras: int | str | None
    """Adapters that memory is planned for. Any number of those loaded may meet in one step."""
    max_lora_rank: int | str | None
    """Largest rank of an adapter."""
    lora_dtype: str | PathLike[str] | None
    """Type of lora_A: auto, which is the model's. lora_B is float32 always."""
    enable_tower_connector_lora: bool | None
    """No effect here: It tunes images, audio and video, which are not built."""
    max_cpu_loras: int | str | None
    """Adapters that may be loaded at once; if unset, the larger of --max-loras and 8."""
    fully_sharded_loras: bool | None
    """No effect here: lora_A or lora_B of a projection is split over tensor-parallel ranks, whichever its weight's split asks for."""
    lora_target_modules: Sequence[str] | str | None
    """Not built: Leaving out some modules of an adapter is not built: an adapter is used as a whole."""
    default_mm_loras: Mapping[str, Any] | str | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    specialize_active_lora: bool | None
    """No effect here: It tunes GPU kernels; here the rows of each adapter are one small product after another."""
    enable_mixed_moe_lora_format: bool | None
    """Not built: LoRA on experts is not built; merge the adapter into the checkpoint instead."""
    enable_moe_shared_loras: bool | None
    """Not built: LoRA on experts is not built; merge the adapter into the checkpoint instead."""
    max_lora_cls_labels: int | str | None
    """Not built: Classification is not built."""
    speculative_config: Mapping[str, Any] | str | None
    """Not built: Speculative decoding is not built; leave the flag out."""
    spec_method: str | PathLike[str] | None
    """Not built: Speculative decoding is not built; leave the flag out."""
    spec_model: str | PathLike[str] | None
    """Not built: Speculative decoding is not built; leave the flag out."""
    spec_tokens: int | str | None
    """Not built: Speculative decoding is not built; leave the flag out."""
    watermark_config: Mapping[str, Any] | str | None
    """Not built: Watermarks are not built; leave the flag out."""
    diffusion_config: Mapping[str, Any] | str | None
    """Not built: Diffusion models are not built."""
    kv_transfer_config: Mapping[str, Any] | str | None
    """Hands blocks of the KV cache to other instances and takes theirs: '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'."""
    kv_events_config: Mapping[str, Any] | str | None
    """Not built: Events of the KV cache are not published; leave the flag out."""
    ec_transfer_config: Mapping[str, Any] | str | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    ec_manager_config: Mapping[str, Any] | str | None
    """Not built: Images, audio and video are not built: Cadre serves language models only."""
    engram_config: Mapping[str, Any] | str | None
    """Not built: Models with Engram memory are not built."""
    reasoning_config: Mapping[str, Any] | str | None
    """Not built: Parsing tool calls and reasoning out of answers comes later; tools are rendered by the chat template and the raw text comes back."""
    additional_config: Mapping[str, Any] | str | None
    """No effect here: It is for vLLM's platform plugins; there are none here."""
    structured_outputs_config: Mapping[str, Any] | str | None
    """Not built: Answers bound to a schema or grammar come later; leave the flag out."""
    aux_output_config: Mapping[str, Any] | str | None
    """Not built: Auxiliary outputs are not built; leave the flag out."""
    profiler_config: Mapping[str, Any] | str | None
    """Not built: Profiling endpoints are not built; use perf on the process."""
    weight_transfer_config: Mapping[str, Any] | str | None
    """No effect here: Weights arrive from a folder or over a socket, whichever a request names; see docs/rl.md."""
    logging_config: Mapping[str, Any] | str | None
    """Not built: Use --log-level."""
    log_config_file: str | PathLike[str] | None
    """Not built: Use --log-level."""
    guided_decoding_backend: str | PathLike[str] | None
    """No effect here: Answers bound to a schema or grammar come later; leave the flag out."""
    chat_template: str | PathLike[str] | None
    """File of a chat template, or the template itself."""
    chat_template_content_format: str | None
    """auto, openai or string."""
    default_chat_template_kwargs: Mapping[str, Any] | str | None
    """Variables of every chat's template."""
    disable_log_stats: bool | None
    """No effect here: There is no periodic line with statistics here; see get_metrics()."""
    enable_log_requests: bool | None
    """No effect here: Requests are not logged."""
    disable_log_requests: bool | None
    """No effect here: Requests are not logged."""
