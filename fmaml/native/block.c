/* Batch norm, leaky ReLU and max-pooling of images laid out channels last, with their first and second derivatives.

   Images are [n, height, width, channels]; the tasks of a meta-batch are channels, too. Pooling takes the maximum of
   windows of k x k pixels with stride k; k = 1 means no pooling. The leaky ReLU multiplies negative numbers by a slope:
   0 is ReLU, and 1 is none. `place` is the position of the maximum in its window, plus BELOW where it is not positive,
   or DEAD where ReLU gives 0. With m the mean of x, r = 1 / sqrt(variance + eps) and h = r (x - m), of each channel,

       y = the maximum of leaky(scale h + shift) in each window,     z = leaky' g at the maxima, and 0 elsewhere.

   Compile with -DREAL=float or double. Sums are in double precision, in an order that depends on the number of threads
   alone. */

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

#define BELOW 128
#define DEAD 255
/* Several channels at once; no two pointers meet. */
#define EACH_CHANNEL _Pragma("omp simd") for (long c = 0; c < channels; c++)

typedef unsigned char Place;

typedef struct {
    long n, height, width, channels, k;
    double eps, slope;
    const REAL *x, *scale, *shift;  /* [n, height, width, channels], [channels], [channels] */
    REAL *mean, *r;                 /* [channels] */
    REAL *y;                        /* [n, height / k, width / k, channels], as are place, g and dg */
    Place *place;
    const REAL *g;                  /* the gradient with respect to y */
    REAL *gx, *gscale, *gshift;     /* the gradients with respect to x, scale and shift */
    const REAL *u, *v, *w;          /* the gradients with respect to those three */
    REAL *dg, *dx, *dscale;         /* and then those with respect to g, x and scale */
    const REAL *means;              /* [sums, channels]: the sums of a first pass, divided by the number of pixels */
    const REAL *zero;               /* [channels]: g and place of a pixel outside all windows */
    const Place *dead;
} Block;

typedef struct {
    const REAL *x, *u, *g;  /* [channels] at this pixel, and at its window */
    const Place *place;
    long index, window;     /* where the pixel and its window begin; window < 0: none */
    Place position;         /* in the window */
} Pixel;

typedef void Visit(const Block *b, Pixel at, REAL *sums);

static void *memory(size_t bytes) {
    void *found = calloc(bytes ? bytes : 1, 1);
    if (!found) abort();
    return found;
}

/* Visit the pixels of one band: the rows of one row of windows. */
static void visit_band(const Block *b, long band, Visit *visit, REAL *sums) {
    long k = b->k, bands = (b->height + k - 1) / k, image = band / bands, top = band % bands * k;
    for (long row = top; row < top + k && row < b->height; row++)
        for (long column = 0; column < b->width; column++) {
            long index = ((image * b->height + row) * b->width + column) * b->channels;
            int inside = row / k < b->height / k && column / k < b->width / k;
            long window = ((image * (b->height / k) + row / k) * (b->width / k) + column / k) * b->channels;
            visit(b, (Pixel){
                b->x + index, b->u ? b->u + index : 0, inside && b->g ? b->g + window : b->zero,
                inside && b->place ? b->place + window : b->dead, index, inside ? window : -1, row % k * k + column % k
            }, sums);
        }
}

static long bands_of(const Block *b) { return b->n * ((b->height + b->k - 1) / b->k); }

/* The sums over all pixels, `count` of each channel, divided by the number of pixels. */
static void mean_over_pixels(const Block *b, Visit *visit, long count, REAL *means) {
    long size = count * b->channels, pixels = b->n * b->height * b->width;
    int threads = omp_get_max_threads();
    double *all = memory(threads * size * sizeof(double));
    #pragma omp parallel num_threads(threads)
    {
        double *own = all + omp_get_thread_num() * size;
        REAL *sums = memory(size * sizeof(REAL));
        #pragma omp for schedule(static)
        for (long band = 0; band < bands_of(b); band++) {
            memset(sums, 0, size * sizeof(REAL));
            visit_band(b, band, visit, sums);
            for (long i = 0; i < size; i++) own[i] += sums[i];
        }
        free(sums);
    }
    for (long i = 0; i < size; i++) {
        double sum = 0;
        for (int thread = 0; thread < threads; thread++) sum += all[thread * size + i];
        means[i] = sum / pixels;
    }
    free(all);
}

static void write_pixels(const Block *b, Visit *visit) {
    #pragma omp parallel for schedule(static)
    for (long band = 0; band < bands_of(b); band++) visit_band(b, band, visit, 0);
}

/* d, d^2 of the distance d to the first pixel, because squares of x itself would lose the digits of a small variance */
static void add_moments(const Block *b, Pixel at, REAL *sums) {
    const long channels = b->channels;
    REAL *squares = sums + channels;
    EACH_CHANNEL { REAL d = at.x[c] - b->x[c]; sums[c] += d; squares[c] += d * d; }
}

static void write_maximum(const Block *b, long window_row) {
    long k = b->k, rows = b->height / k, columns = b->width / k, image = window_row / rows, row = window_row % rows;
    const long channels = b->channels;
    const REAL *mean = b->mean, *shift = b->shift, slope = b->slope;
    const Place mark = slope ? BELOW : DEAD;
    REAL *a = memory(channels * sizeof(REAL));
    EACH_CHANNEL a[c] = b->scale[c] * b->r[c];
    for (long column = 0; column < columns; column++) {
        REAL *y = b->y + (window_row * columns + column) * b->channels;
        Place *place = b->place + (window_row * columns + column) * b->channels;
        for (int p = 0; p < k * k; p++) {
            const REAL *x =
                b->x + ((image * b->height + row * k + p / k) * b->width + column * k + p % k) * b->channels;
            if (p == 0)
                EACH_CHANNEL { y[c] = a[c] * (x[c] - mean[c]) + shift[c]; place[c] = 0; }
            else
                EACH_CHANNEL {
                    REAL value = a[c] * (x[c] - mean[c]) + shift[c];
                    int larger = value > y[c];  /* with a NaN in x, all of the channel is NaN */
                    y[c] = larger ? value : y[c];
                    place[c] = larger ? p : place[c];
                }
        }
        EACH_CHANNEL {
            int below = y[c] <= 0;
            place[c] |= below ? mark : 0;
            y[c] = !below ? y[c] : slope ? slope * y[c] : 0;
        }
    }
    free(a);
}

/* x, scale, shift -> y, mean, r, place */
void forward(Block *b) {
    const long channels = b->channels;
    REAL *means = memory(2 * channels * sizeof(REAL));
    mean_over_pixels(b, add_moments, 2, means);
    for (long c = 0; c < channels; c++) {
        double d = means[c], variance = means[channels + c] - d * d;
        b->mean[c] = b->x[c] + d;
        b->r[c] = 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + b->eps);
    }
    free(means);
    #pragma omp parallel for schedule(static)
    for (long row = 0; row < b->n * (b->height / b->k); row++) write_maximum(b, row);
}

/* Names for a pixel's values. */
#define PIXEL                                                                                                          \
    const REAL *x = at.x, *g = at.g, *mean = b->mean, *r = b->r, slope = b->slope;                                     \
    const Place *place = at.place;                                                                                     \
    const Place position = at.position, below = position | BELOW;                                                      \
    const long channels = b->channels;
#define Z (place[c] == position ? g[c] : place[c] == below ? slope * g[c] : 0)
#define H ((x[c] - mean[c]) * r[c])

static void add_gradient(const Block *b, Pixel at, REAL *sums) {  /* z, z h */
    PIXEL
    REAL *zh = sums + channels;
    if (at.window >= 0) EACH_CHANNEL { REAL z = Z; sums[c] += z; zh[c] += z * H; }
}

/* gx = scale r (z - mean z - h mean(z h)) */
static void write_gradient(const Block *b, Pixel at, REAL *unused) {
    PIXEL
    (void)unused;
    const REAL *mz = b->means, *mzh = mz + channels, *scale = b->scale;
    REAL *gx = b->gx + at.index;
    EACH_CHANNEL gx[c] = scale[c] * r[c] * (Z - mz[c] - H * mzh[c]);
}

/* g, x, scale, mean, r, place -> gx, gscale, gshift */
void gradient(Block *b) {
    const long channels = b->channels, pixels = b->n * b->height * b->width;
    REAL *means = memory(2 * b->channels * sizeof(REAL));
    mean_over_pixels(b, add_gradient, 2, means);
    b->means = means;
    write_pixels(b, write_gradient);
    EACH_CHANNEL { b->gshift[c] = pixels * means[c]; b->gscale[c] = pixels * means[b->channels + c]; }
    free(means);
}

static void add_second(const Block *b, Pixel at, REAL *sums) {  /* u, u h, z, z h, u z */
    PIXEL
    const REAL *u = at.u;
    REAL *uh = sums + channels, *sz = uh + channels, *zh = sz + channels,
         *uz = zh + channels;
    EACH_CHANNEL {
        REAL z = Z, h = H;
        sums[c] += u[c];
        uh[c] += u[c] * h;
        sz[c] += z;
        zh[c] += z * h;
        uz[c] += u[c] * z;
    }
}

/* dg = leaky' (scale r (u - mean u - h mean(u h)) + v h + w) at the maxima;
   dx = r (t - mean t - h mean(t h) - scale r q h)   with  t = v z - scale r (u mean(z h) + z mean(u h)),
   and q = mean(u z) - mean u mean z - mean(u h) mean(z h) */
static void write_second(const Block *b, Pixel at, REAL *unused) {
    PIXEL
    (void)unused;
    const REAL *u = at.u, *v = b->v, *w = b->w, *scale = b->scale;
    const REAL *mu = b->means, *muh = mu + channels, *mz = muh + channels,
               *mzh = mz + channels, *muz = mzh + channels;
    REAL *dx = b->dx + at.index;
    EACH_CHANNEL {
        REAL z = Z, h = H, a = scale[c] * r[c], q = muz[c] - mu[c] * mz[c] - muh[c] * mzh[c];
        REAL t = v[c] * z - a * (u[c] * mzh[c] + z * muh[c]);
        REAL mt = v[c] * mz[c] - a * (mu[c] * mzh[c] + mz[c] * muh[c]), mth = v[c] * mzh[c] - 2 * a * muh[c] * mzh[c];
        dx[c] = r[c] * (t - mt - h * mth - a * q * h);
    }
    if (at.window >= 0) {
        REAL *dg = b->dg + at.window;
        EACH_CHANNEL {
            REAL h = H, value = scale[c] * r[c] * (u[c] - mu[c] - h * muh[c]) + v[c] * h + w[c];
            REAL others = position ? dg[c] : 0;
            dg[c] = place[c] == position ? value : place[c] == below ? slope * value : others;
        }
    }
}

/* u, v, w, g, x, scale, mean, r, place -> dg, dx, dscale */
void second(Block *b) {
    const long channels = b->channels, pixels = b->n * b->height * b->width;
    REAL *means = memory(5 * b->channels * sizeof(REAL));
    mean_over_pixels(b, add_second, 5, means);
    b->means = means;
    write_pixels(b, write_second);
    EACH_CHANNEL {
        const REAL *m = means + c;
        b->dscale[c] = pixels * b->r[c] * (m[4 * channels] - m[0] * m[2 * channels] - m[channels] * m[3 * channels]);
    }
    free(means);
}
