// What torch is slow at when it trains a mobile network on a CPU: batch normalisation with its activation, and
// depthwise convolution. Plain C++17 with GCC's and Clang's vector types; no headers of torch, compiled in seconds.
//
// Tensors are channels-last, so a matrix [rows = n * h * w][channels], of float or bfloat16; sums are taken in float and,
// over blocks of rows, in double. A thread takes a contiguous part of the rows: the result depends on their number only.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bfloat16 {
    uint16_t bits;
};

template <int L> struct Lanes {
    typedef float floats __attribute__((vector_size(4 * L)));
    typedef float loose __attribute__((vector_size(4 * L), aligned(4), may_alias));
    typedef uint32_t words __attribute__((vector_size(4 * L)));
    typedef uint16_t halves __attribute__((vector_size(2 * L)));
    typedef uint16_t loose_halves __attribute__((vector_size(2 * L), aligned(2), may_alias));
};
template <int L> using Floats = typename Lanes<L>::floats;

template <int L> inline Floats<L> load(const float *from) { return *(const typename Lanes<L>::loose *)from; }

template <int L> inline Floats<L> load(const bfloat16 *from) {
    auto words = __builtin_convertvector(
        (typename Lanes<L>::halves)(*(const typename Lanes<L>::loose_halves *)from), typename Lanes<L>::words);
    return (Floats<L>)(words << 16);
}

template <int L> inline void store(float *to, Floats<L> value) { *(typename Lanes<L>::loose *)to = value; }

// Rounded to nearest, ties to even.
template <int L> inline void store(bfloat16 *to, Floats<L> value) {
    auto words = (typename Lanes<L>::words)value;
    words += 0x7fff + ((words >> 16) & 1);
    *(typename Lanes<L>::loose_halves *)to = __builtin_convertvector(words >> 16, typename Lanes<L>::halves);
}

enum Activation { NONE, RELU, RELU6, HARDSWISH };

// Comparisons are written so that a NaN stays one.
template <int A, int L> inline Floats<L> activate(Floats<L> z) {
    const Floats<L> zero = {}, six = zero + 6.0f;
    if (A == RELU) return z < zero ? zero : z;
    if (A == RELU6) return z < zero ? zero : (z > six ? six : z);
    if (A == HARDSWISH) {
        auto gate = z + 3.0f;
        gate = gate < zero ? zero : (gate > six ? six : gate);
        return z * gate * (1.0f / 6.0f);
    }
    return z;
}

// gradient * derivative of the activation at z; at the kinks as torch has it.
template <int A, int L> inline Floats<L> derive(Floats<L> gradient, Floats<L> z) {
    const Floats<L> zero = {}, six = zero + 6.0f, three = zero + 3.0f;
    if (A == RELU) return z <= zero ? zero : gradient;
    if (A == RELU6) return z <= zero ? zero : (z >= six ? zero : gradient);
    if (A == HARDSWISH)
        return z < -three ? zero : (z <= three ? gradient * (z * (1.0f / 3.0f) + 0.5f) : gradient);
    return gradient;
}

// Calls body.template run<L>(channel) so that every channel is in one of its vectors of L.
template <class Body> inline void over(int64_t channels, const Body &body) {
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16) body.template run<16>(c);
    if (c + 8 <= channels) body.template run<8>(c), c += 8;
    for (; c < channels; c++) body.template run<1>(c);
}

struct Part {
    int64_t from, to;
};

inline Part part(int64_t count, int64_t index, int64_t parts) {
    return {count * index / parts, count * (index + 1) / parts};
}

const int64_t BLOCK = 128;  // rows that are summed in float

template <class T> struct Moments {
    const T *x;
    const float *shift;
    float *sums, *squares;
    template <int L> void run(int64_t c) const {
        auto value = load<L>(x + c) - load<L>(shift + c);
        store<L>(sums + c, load<L>(sums + c) + value);
        store<L>(squares + c, load<L>(squares + c) + value * value);
    }
};

template <class T, int A> struct Transform {
    const T *x;
    T *y;
    const float *scale, *offset;
    template <int L> void run(int64_t c) const {
        store<L>(y + c, activate<A, L>(load<L>(x + c) * load<L>(scale + c) + load<L>(offset + c)));
    }
};

template <class T, int A> struct Reduce {
    const T *x, *dy;
    const float *scale, *offset, *mean;
    float *sums, *products;
    template <int L> void run(int64_t c) const {
        auto value = load<L>(x + c);
        auto g = derive<A, L>(load<L>(dy + c), value * load<L>(scale + c) + load<L>(offset + c));
        store<L>(sums + c, load<L>(sums + c) + g);
        store<L>(products + c, load<L>(products + c) + g * (value - load<L>(mean + c)));
    }
};

template <class T, int A> struct Gradient {
    const T *x, *dy;
    T *dx;
    const float *scale, *offset, *mean, *constant, *slope;
    template <int L> void run(int64_t c) const {
        auto value = load<L>(x + c);
        auto g = derive<A, L>(load<L>(dy + c), value * load<L>(scale + c) + load<L>(offset + c));
        auto centred = value - load<L>(mean + c);
        store<L>(dx + c, load<L>(scale + c) * (g - load<L>(constant + c) - centred * load<L>(slope + c)));
    }
};

// Adds up two sums per channel over all rows: make(row, first, second) is a body that adds a row's to the floats there.
template <class Make>
void total(int64_t threads, int64_t rows, int64_t channels, std::vector<double> &first, std::vector<double> &second,
           const Make &make) {
    std::vector<double> partial(2 * channels * threads, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t thread = 0; thread < threads; thread++) {
        std::vector<float> block(2 * channels);
        double *mine = partial.data() + 2 * channels * thread;
        const Part own = part(rows, thread, threads);
        for (int64_t start = own.from; start < own.to; start += BLOCK) {
            std::fill(block.begin(), block.end(), 0.0f);
            const int64_t stop = start + BLOCK < own.to ? start + BLOCK : own.to;
            for (int64_t row = start; row < stop; row++) over(channels, make(row, block.data(), block.data() + channels));
            for (int64_t c = 0; c < 2 * channels; c++) mine[c] += block[c];
        }
    }
    first.assign(channels, 0.0), second.assign(channels, 0.0);
    for (int64_t thread = 0; thread < threads; thread++)
        for (int64_t c = 0; c < channels; c++) {
            first[c] += partial[2 * channels * thread + c];
            second[c] += partial[2 * channels * thread + channels + c];
        }
}

template <class Make> void each(int64_t threads, int64_t rows, int64_t channels, const Make &make) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t thread = 0; thread < threads; thread++) {
        const Part own = part(rows, thread, threads);
        for (int64_t row = own.from; row < own.to; row++) over(channels, make(row));
    }
}

struct Norm {
    int64_t threads, rows, channels;
    const float *weight, *bias;
    float *mean, *variance;  // of the batch, biased; written by forward, read by backward
    double eps;

    void affine(std::vector<float> &scale, std::vector<float> &offset) const {
        scale.resize(channels), offset.resize(channels);
        for (int64_t c = 0; c < channels; c++) {
            scale[c] = (float)(weight[c] / std::sqrt((double)variance[c] + eps));
            offset[c] = bias[c] - mean[c] * scale[c];
        }
    }

    template <class T, int A> void forward(const T *x, T *y) const {
        std::vector<float> shift(channels), scale, offset;
        std::vector<double> sums, squares;
        for (int64_t c = 0; c < channels; c++) shift[c] = load<1>(x + c)[0];
        total(threads, rows, channels, sums, squares, [&](int64_t row, float *first, float *second) {
            return Moments<T>{x + row * channels, shift.data(), first, second};
        });
        for (int64_t c = 0; c < channels; c++) {
            const double moved = sums[c] / rows, spread = squares[c] / rows - moved * moved;
            mean[c] = (float)(shift[c] + moved);
            variance[c] = (float)(spread < 0 ? 0 : spread);
        }
        affine(scale, offset);
        each(threads, rows, channels, [&](int64_t row) {
            return Transform<T, A>{x + row * channels, y + row * channels, scale.data(), offset.data()};
        });
    }

    template <class T, int A> void backward(const T *x, const T *dy, T *dx, float *dweight, float *dbias) const {
        std::vector<float> scale, offset, constant(channels), slope(channels);
        std::vector<double> sums, products;
        affine(scale, offset);
        total(threads, rows, channels, sums, products, [&](int64_t row, float *first, float *second) {
            return Reduce<T, A>{x + row * channels, dy + row * channels, scale.data(), offset.data(), mean, first, second};
        });
        for (int64_t c = 0; c < channels; c++) {
            const double precision = 1 / ((double)variance[c] + eps);
            dbias[c] = (float)sums[c];
            dweight[c] = (float)(products[c] * std::sqrt(precision));
            constant[c] = (float)(sums[c] / rows);
            slope[c] = (float)(products[c] / rows * precision);
        }
        each(threads, rows, channels, [&](int64_t row) {
            return Gradient<T, A>{x + row * channels, dy + row * channels, dx + row * channels, scale.data(),
                                  offset.data(), mean, constant.data(), slope.data()};
        });
    }
};

// The gradients of a depthwise convolution padded by K / 2. Weights lie as [K * K][channels].
template <class T, int K, int S> struct Depthwise {
    int64_t threads, images, height, width, channels, out_height, out_width;

    static constexpr int PAD = K / 2;

    // An input row gathers from the outputs that it went into: lines[i] is the output row behind kernel row i.
    struct Input {
        const Depthwise &shape;
        const T *lines[K];
        const float *weight;
        T *row;

        template <int L> void run(int64_t c) const {
            Floats<L> w[K * K];
            for (int i = 0; i < K * K; i++) w[i] = load<L>(weight + i * shape.channels + c);
            for (int64_t iw = 0; iw < shape.width; iw++)
                if (S != 1 || iw < PAD || iw >= shape.width - PAD) pixel<L, true>(iw, c, w);
                else pixel<L, false>(iw, c, w);
        }

        template <int L, bool EDGE> inline void pixel(int64_t iw, int64_t c, const Floats<L> *w) const {
            Floats<L> sum = {};
#pragma GCC unroll 8
            for (int i = 0; i < K; i++) {
#pragma GCC unroll 8
                for (int j = 0; j < K; j++) {
                    const int64_t v = iw + PAD - j;
                    if (EDGE && (v < 0 || v % S || v / S >= shape.out_width)) continue;
                    sum += load<L>(lines[i] + v / S * shape.channels + c) * w[i * K + j];
                }
            }
            store<L>(row + iw * shape.channels + c, sum);
        }
    };

    // dw += what one output row says: lines[i] is the input row under kernel row i.
    struct Weight {
        const Depthwise &shape;
        const T *lines[K];
        const T *row;
        float *dw;

        template <int L> void run(int64_t c) const {
            Floats<L> sums[K * K] = {};
            for (int64_t ow = 0; ow < shape.out_width; ow++)
                if (ow * S < PAD || ow * S >= shape.width - PAD) pixel<L, true>(ow, c, sums);
                else pixel<L, false>(ow, c, sums);
            for (int i = 0; i < K * K; i++) {
                float *to = dw + i * shape.channels + c;
                store<L>(to, load<L>(to) + sums[i]);
            }
        }

        template <int L, bool EDGE> inline void pixel(int64_t ow, int64_t c, Floats<L> *sums) const {
            const Floats<L> g = load<L>(row + ow * shape.channels + c);
#pragma GCC unroll 8
            for (int i = 0; i < K; i++) {
#pragma GCC unroll 8
                for (int j = 0; j < K; j++) {
                    const int64_t iw = ow * S + j - PAD;
                    if (EDGE && (iw < 0 || iw >= shape.width)) continue;
                    sums[i * K + j] += load<L>(lines[i] + iw * shape.channels + c) * g;
                }
            }
        }
    };

    // `zeros` is the row outside the image.
    void image(const T *x, const float *weight, const T *dy, T *dx, float *dw, const T *zeros) const {
        const int64_t line = width * channels, out_line = out_width * channels;
        for (int64_t oh = 0; oh < out_height; oh++) {
            Weight body = {*this, {}, dy + oh * out_line, dw};
            for (int i = 0; i < K; i++) {
                const int64_t ih = oh * S + i - PAD;
                body.lines[i] = ih < 0 || ih >= height ? zeros : x + ih * line;
            }
            over(channels, body);
        }
        for (int64_t ih = 0; ih < height; ih++) {
            Input body = {*this, {}, weight, dx + ih * line};
            for (int i = 0; i < K; i++) {
                const int64_t h = ih + PAD - i;
                body.lines[i] = h < 0 || h % S || h / S >= out_height ? zeros : dy + h / S * out_line;
            }
            over(channels, body);
        }
    }

    // Sums of an image are taken in float, over images in double.
    void backward(const T *x, const float *weight, const T *dy, T *dx, float *dweight) const {
        const int64_t size = K * K * channels, in = height * width * channels, out = out_height * out_width * channels;
        std::vector<double> partial(threads * size, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
        for (int64_t thread = 0; thread < threads; thread++) {
            const Part own = part(images, thread, threads);
            std::vector<float> sums(size);
            const std::vector<T> zeros(width * channels);
            for (int64_t n = own.from; n < own.to; n++) {
                std::fill(sums.begin(), sums.end(), 0.0f);
                image(x + n * in, weight, dy + n * out, dx + n * in, sums.data(),
                      zeros.data());
                for (int64_t i = 0; i < size; i++) partial[thread * size + i] += sums[i];
            }
        }
        for (int64_t i = 0; i < size; i++) {
            double sum = 0;
            for (int64_t thread = 0; thread < threads; thread++) sum += partial[thread * size + i];
            dweight[i] = (float)sum;
        }
    }
};

#define BY_ACTIVATION(T, CALL) \
    switch (activation) { \
        case NONE: { constexpr int A = NONE; CALL; break; } \
        case RELU: { constexpr int A = RELU; CALL; break; } \
        case RELU6: { constexpr int A = RELU6; CALL; break; } \
        case HARDSWISH: { constexpr int A = HARDSWISH; CALL; break; } \
        default: return 1; \
    }
#define BY_TYPE(CALL) \
    if (is_bfloat16) { typedef bfloat16 T; CALL } else { typedef float T; CALL }
#define BY_KERNEL(CALL) \
    switch (10 * k + stride) { \
        case 31: { constexpr int K = 3, S = 1; CALL; break; } \
        case 32: { constexpr int K = 3, S = 2; CALL; break; } \
        case 51: { constexpr int K = 5, S = 1; CALL; break; } \
        case 52: { constexpr int K = 5, S = 2; CALL; break; } \
        default: return 1; \
    }

}  // namespace

// Each returns 0, or 1 for an option that it does not have.
extern "C" {

int norm_forward(int64_t threads, int64_t is_bfloat16, int64_t activation, int64_t rows, int64_t channels, double eps,
                 const float *weight, const float *bias, const void *x, void *y, float *mean, float *variance) {
    const Norm norm = {threads, rows, channels, weight, bias, mean, variance, eps};
    BY_TYPE(BY_ACTIVATION(T, (norm.forward<T, A>((const T *)x, (T *)y))))
    return 0;
}

int norm_backward(int64_t threads, int64_t is_bfloat16, int64_t activation, int64_t rows, int64_t channels, double eps,
                  const float *weight, const float *bias, const void *x, const void *dy, void *dx, float *mean,
                  float *variance, float *dweight, float *dbias) {
    const Norm norm = {threads, rows, channels, weight, bias, mean, variance, eps};
    BY_TYPE(BY_ACTIVATION(T, (norm.backward<T, A>((const T *)x, (const T *)dy, (T *)dx, dweight, dbias))))
    return 0;
}

int depthwise_backward(int64_t threads, int64_t is_bfloat16, int64_t k, int64_t stride, int64_t images, int64_t height,
                       int64_t width, int64_t channels, const void *x, const float *weight, const void *dy, void *dx,
                       float *dweight) {
    const int64_t out_height = (height - 1) / stride + 1, out_width = (width - 1) / stride + 1;
    BY_TYPE(BY_KERNEL((Depthwise<T, K, S>{threads, images, height, width, channels, out_height, out_width}.backward(
        (const T *)x, weight, (const T *)dy, (T *)dx, dweight))))
    return 0;
}
}
