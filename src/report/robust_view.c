/* robust_view: rankings on several models, and eviction with precision, as text. */
#include "report/view.h"

#include <math.h>
#include <string.h>

static void print_group(const json_t *g, FILE *out)
{
    const json_t *m, *r, *x, *models = json_object_get(g, "models");
    const bool generate = strcmp(kept_view_text(g, "kind"), "score") != 0;
    size_t i, k;
    fprintf(out, "%s, %.0f tokens: change against full (%s) and rank\n", kept_view_text(g, "task"),
            kept_view_number(g, "length"), generate ? "points" : "nats of NLL");
    json_array_foreach(models, i, m)
        fprintf(out, "  %c  %s, %.0fM parameters\n", (int)('A' + i), kept_view_text(m, "name"),
                kept_view_number(m, "n_params") / 1e6);
    fprintf(out, "  %-32s", "");
    for (i = 0; i < json_array_size(models); i++)
        fprintf(out, " %9c %5s", (int)('A' + i), "rank");
    fputc('\n', out);
    json_array_foreach(json_object_get(g, "rows"), i, r)
    {
        fprintf(out, "  %-32.60s", kept_view_text(r, "row"));
        json_array_foreach(json_object_get(r, "change"), k, x)
            fprintf(out, generate ? " %+9.1f %5.1f" : " %+9.4f %5.1f",
                    (generate ? 100 : 1) * json_number_value(x),
                    json_number_value(json_array_get(json_object_get(r, "rank"), k)));
        fputc('\n', out);
    }
    json_array_foreach(json_object_get(g, "tau"), i, x)
    {
        const double p = kept_view_number(x, "p");
        fprintf(out, "  Kendall's tau %c, %c: %+.2f over %.0f rows",
                (int)('A' + (int)kept_view_number(x, "a")),
                (int)('A' + (int)kept_view_number(x, "b")), kept_view_number(x, "tau"),
                kept_view_number(x, "n"));
        fprintf(out, isfinite(p) ? ", p %.3g\n" : ", with ties\n", p);
    }
}

kept_status kept_report_scale(const json_t *list, FILE *out)
{
    const json_t *g;
    size_t i;
    json_array_foreach(list, i, g)
    {
        if (i)
            fputc('\n', out);
        print_group(g, out);
    }
    fputs(json_array_size(list)
              ? "\ntau: 1 the same order, 0 no relation, -1 the opposite; p of no relation, exact. "
                "Few samples tie rows\n"
              : "no task was run on two models with a strategy in common\n",
          out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}

kept_status kept_report_precision(const json_t *list, FILE *out)
{
    const json_t *r;
    size_t i;
    if (json_array_size(list))
        fprintf(out, "%-24s %-24s %-28s %5s %8s %8s %8s %9s %20s\n", "task", "evicted", "packed",
                "n", "evict", "pack", "both", "interact.", "95%");
    json_array_foreach(list, i, r)
    {
        const bool generate = strcmp(kept_view_text(r, "kind"), "score") != 0;
        const double k = generate ? 100 : 1;
        fprintf(out,
                generate ? "%-24.24s %-24.60s %-28.60s %5.0f %+8.1f %+8.1f %+8.1f %+9.1f %+9.1f "
                           "..%+9.1f\n"
                         : "%-24.24s %-24.60s %-28.60s %5.0f %+8.4f %+8.4f %+8.4f %+9.4f %+9.4f "
                           "..%+9.4f\n",
                kept_view_text(r, "task"), kept_view_text(r, "row"), kept_view_text(r, "packed"),
                kept_view_number(r, "n"), k * kept_view_number(r, "evict"),
                k * kept_view_number(r, "pack"), k * kept_view_number(r, "both"),
                k * kept_view_number(r, "interaction"), k * kept_view_number(r, "low"),
                k * kept_view_number(r, "high"));
    }
    fputs(json_array_size(list)
              ? "\ninteract.: what both cost beyond the sum of eviction and packing, sample by "
                "sample. A budget in % or bytes lets a\npacked row hold more slots; one in tokens "
                "(@512) does not\n"
              : "no strategy of this setting was run as f16 and packed, with the full cache packed "
                "alike beside it\n"
                "(kept run --strategy 'h2o,h2o+q4,full+q4' --budget 512)\n",
          out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
