/* Serves a SavedModel through TensorFlow's C API, whose TF_LoadSessionFromSavedModel is the C++ loader that TensorFlow
   Serving uses; there is no Python in it.

   c_session MODEL RUNS FETCH... < INPUTS

   INPUTS is one tensor after another: a line "TENSOR TYPE RANK SIZE..." (TYPE as in tf_datatype.h), then its values:
   little-endian numbers, or of TF_STRING for each value its length, a uint64, and its bytes. Every FETCH names a tensor
   of float or int32. The request is run RUNS times; a line of their milliseconds is printed, with the load before them,
   and then, for every FETCH, one of the last run's values. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"

#define MOST 256 /* inputs, or outputs */

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const char* what, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static void read_bytes(void* to, size_t size) {
  if (fread(to, 1, size, stdin) != size) fail("inputs", "they end too early");
}

/* "operation:index" in the graph. */
static TF_Output find(TF_Graph* graph, const char* tensor) {
  char operation[256];
  int index;
  if (sscanf(tensor, "%255[^:]:%d", operation, &index) != 2) fail(tensor, "not the name of a tensor");
  TF_Output output = {TF_GraphOperationByName(graph, operation), index};
  if (!output.oper) fail(tensor, "not in the graph");
  return output;
}

static TF_Tensor* read_tensor(TF_DataType type, int rank) {
  int64_t sizes[8], count = 1;
  for (int i = 0; i < rank; ++i) {
    if (scanf("%" SCNd64, &sizes[i]) != 1) fail("inputs", "no size");
    count *= sizes[i];
  }
  getchar(); /* the end of the line */
  size_t width = type == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize(type);
  TF_Tensor* tensor = TF_AllocateTensor(type, sizes, rank, count * width);
  if (type != TF_STRING) {
    read_bytes(TF_TensorData(tensor), count * width);
    return tensor;
  }
  TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t size;
    read_bytes(&size, sizeof size);
    char* bytes = malloc(size + 1);
    read_bytes(bytes, size);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], bytes, size);
    free(bytes);
  }
  return tensor;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

int main(int argc, char** argv) {
  const char* tags[] = {"serve"};
  int runs = argc > 2 ? atoi(argv[2]) : 0, fetches = argc - 3, feeds = 0;
  TF_Output fetch[MOST], feed[MOST];
  TF_Tensor *values[MOST], *results[MOST];
  if (runs < 1 || fetches < 1 || fetches > MOST) fail("usage", "c_session MODEL RUNS FETCH... < INPUTS");
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  double start = milliseconds();
  TF_Session* session =
      TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, argv[1], tags, 1, graph, NULL, status);
  check(argv[1], status);
  printf("%.4f ", milliseconds() - start);
  for (int i = 0; i < fetches; ++i) fetch[i] = find(graph, argv[i + 3]);

  char tensor[256];
  int type, rank;
  while (scanf("%255s %d %d", tensor, &type, &rank) == 3) {
    if (feeds == MOST || rank < 0 || rank > 8) fail(tensor, "too many inputs or axes");
    feed[feeds] = find(graph, tensor);
    values[feeds++] = read_tensor(type, rank);
  }
  for (int run = 0; run < runs; ++run) {
    for (int i = 0; run && i < fetches; ++i) TF_DeleteTensor(results[i]);
    start = milliseconds();
    TF_SessionRun(session, NULL, feed, values, feeds, fetch, results, fetches, NULL, 0, NULL, status);
    check("run", status);
    printf("%.4f ", milliseconds() - start);
  }
  for (int i = 0; i < fetches; ++i) {
    TF_DataType kind = TF_TensorType(results[i]);
    if (kind != TF_FLOAT && kind != TF_INT32) fail(argv[i + 3], "neither a float nor an int32 tensor");
    const void* data = TF_TensorData(results[i]);
    printf("\n");
    for (int64_t n = 0; n < TF_TensorElementCount(results[i]); ++n) {
      if (kind == TF_FLOAT) printf("%.9g ", ((const float*)data)[n]);
      else printf("%" PRId32 " ", ((const int32_t*)data)[n]);
    }
  }
  printf("\n");
  return 0;
}
