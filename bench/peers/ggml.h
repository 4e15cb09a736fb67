// SPDX-License-Identifier: Apache-2.0
// ggml's shared libraries, opened at run time: declarations of our own of the few functions of its
// public C interface that attention needs. All types but `Init` stay opaque, so that a new version
// of ggml with other structs works as well.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace kvast::peers {

/// How ggml stores a tensor; the numbers are those of its model files.
enum class TensorType : int { f32 = 0, f16 = 1, q4_0 = 2, q8_0 = 8 };

struct Context;
struct Tensor;
struct Graph;
struct Backend;
struct BufferType;
struct Allocator;
struct Threadpool;

struct Init {
  std::size_t bytes;
  void* buffer;
  bool no_alloc;
};

/// The functions, named as ggml names them but for the prefix. The libraries stay open to the
/// program's end.
class Ggml {
 public:
  /// `folder` holds libggml-base.so and libggml-cpu.so. Throws std::runtime_error when one of them,
  /// or one of its functions, is missing.
  explicit Ggml(const std::string& folder)
      : base_(open(folder + "/libggml-base.so")), cpu_(open(folder + "/libggml-cpu.so")) {
    find(version, base_, "ggml_version");
    find(init, base_, "ggml_init");
    find(free, base_, "ggml_free");
    find(tensor_overhead, base_, "ggml_tensor_overhead");
    find(row_size, base_, "ggml_row_size");
    find(nbytes, base_, "ggml_nbytes");
    find(new_tensor_3d, base_, "ggml_new_tensor_3d");
    find(get_data, base_, "ggml_get_data");
    find(quantize_chunk, base_, "ggml_quantize_chunk");
    find(permute, base_, "ggml_permute");
    find(flash_attn_ext, base_, "ggml_flash_attn_ext");
    find(mul_mat, base_, "ggml_mul_mat");
    find(soft_max_ext, base_, "ggml_soft_max_ext");
    find(set_output, base_, "ggml_set_output");
    find(graph_overhead_custom, base_, "ggml_graph_overhead_custom");
    find(new_graph_custom, base_, "ggml_new_graph_custom");
    find(build_forward_expand, base_, "ggml_build_forward_expand");
    find(gallocr_new, base_, "ggml_gallocr_new");
    find(gallocr_alloc_graph, base_, "ggml_gallocr_alloc_graph");
    find(gallocr_free, base_, "ggml_gallocr_free");
    find(backend_graph_compute, base_, "ggml_backend_graph_compute");
    find(backend_cpu_buffer_type, base_, "ggml_backend_cpu_buffer_type");
    find(threadpool_params_init, base_, "ggml_threadpool_params_init");
    find(backend_cpu_init, cpu_, "ggml_backend_cpu_init");
    find(backend_cpu_set_n_threads, cpu_, "ggml_backend_cpu_set_n_threads");
    find(backend_cpu_set_threadpool, cpu_, "ggml_backend_cpu_set_threadpool");
    find(threadpool_new, cpu_, "ggml_threadpool_new");
  }

  const char* (*version)();
  Context* (*init)(Init);
  void (*free)(Context*);
  std::size_t (*tensor_overhead)();
  std::size_t (*row_size)(TensorType, std::int64_t numbers);
  std::size_t (*nbytes)(const Tensor*);
  Tensor* (*new_tensor_3d)(Context*, TensorType, std::int64_t, std::int64_t, std::int64_t);
  void* (*get_data)(const Tensor*);
  std::size_t (*quantize_chunk)(TensorType, const float* from, void* to, std::int64_t start,
                                std::int64_t rows, std::int64_t per_row, const float* importance);
  Tensor* (*permute)(Context*, Tensor*, int, int, int, int);
  Tensor* (*flash_attn_ext)(Context*, Tensor* q, Tensor* k, Tensor* v, Tensor* mask, float scale,
                            float max_bias, float softcap);
  Tensor* (*mul_mat)(Context*, Tensor*, Tensor*);
  Tensor* (*soft_max_ext)(Context*, Tensor*, Tensor* mask, float scale, float max_bias);
  void (*set_output)(Tensor*);
  std::size_t (*graph_overhead_custom)(std::size_t nodes, bool gradients);
  Graph* (*new_graph_custom)(Context*, std::size_t nodes, bool gradients);
  void (*build_forward_expand)(Graph*, Tensor*);
  Allocator* (*gallocr_new)(BufferType*);
  bool (*gallocr_alloc_graph)(Allocator*, Graph*);
  void (*gallocr_free)(Allocator*);
  int (*backend_graph_compute)(Backend*, Graph*);
  BufferType* (*backend_cpu_buffer_type)();
  void (*threadpool_params_init)(void* params, int threads);
  Backend* (*backend_cpu_init)();
  void (*backend_cpu_set_n_threads)(Backend*, int);
  void (*backend_cpu_set_threadpool)(Backend*, Threadpool*);
  Threadpool* (*threadpool_new)(void* params);

  /// A CPU backend whose `threads` threads live as long as the program.
  Backend* cpu(int threads) const {
    alignas(64) std::byte params[4096] = {};  // its own struct has some 530 bytes
    threadpool_params_init(params, threads);
    Backend* backend = backend_cpu_init();
    backend_cpu_set_n_threads(backend, threads);
    backend_cpu_set_threadpool(backend, threadpool_new(params));
    return backend;
  }

 private:
  static void* open(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) throw std::runtime_error(dlerror());
    return library;
  }
  template <class Function>
  static void find(Function& function, void* library, const char* name) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) throw std::runtime_error(std::string("no ") + name + " in ggml");
    function = reinterpret_cast<Function>(symbol);
  }

  void* base_;
  void* cpu_;
};

}  // namespace kvast::peers
