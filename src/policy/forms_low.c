/* forms_low: pages of coefficients along directions, of one layer and of several: what cannot be,
 * and what they take. */
#include "policy/parts.h"

/* The form of the layers that are no edges. */
static bool form_of(const kept_strategy *s, kept_codecs *form)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (!kept_form_is(s, &kept_part_store))
        return false;
    *form = (kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]};
    return true;
}

const char *kept_form_trained(const kept_strategy *s)
{
    kept_codecs form;
    if (!form_of(s, &form))
        return NULL;
    return kept_codec_has_basis(form) ? "basis" : kept_codec_has_nuq(form) ? "nuq" : NULL;
}

/* Slots of layers that share pages come and go together, and stay where they are. */
static kept_status check_shared(const kept_strategy *s, const char *k, kept_error *err)
{
    if (!kept_strategy_is_full(s))
        return kept_fail(err, KEPT_ARGUMENT,
                         "keys stored as %s lie in pages of several layers, and '%s' chooses slots "
                         "layer by layer; use full, or k=low50",
                         k, s->part[KEPT_AXIS_SCORE]->name);
    if (s->option[KEPT_AXIS_CODEC][KEPT_STORE_EDGE] > 0)
        return kept_fail(
            err, KEPT_ARGUMENT,
            "keys stored as %s lie in pages of several layers, and edge= stores some of "
            "them apart; use edge=0, or k=low50",
            k);
    return KEPT_OK;
}

kept_status kept_form_check_low(const kept_strategy *s, kept_error *err)
{
    kept_codecs form;
    if (!form_of(s, &form))
        return KEPT_OK;
    const kept_codec_info *k = kept_codec_get(form.k), *v = kept_codec_get(form.v);
    if (v->channel || kept_codec_is_thin(form.v) || v->basis == KEPT_BASIS_FLAT)
        return kept_fail(err, KEPT_ARGUMENT, "%s is for keys; for values use %s", v->name,
                         v->channel ? "tok4 or tok2"
                         : v->basis ? "low50"
                                    : "f16");
    if (kept_codec_layers(form) != kept_codec_layers((kept_codecs){form.v, form.v}) ||
        k->slerp != v->slerp)
        return kept_fail(err, KEPT_ARGUMENT,
                         "a page of several layers holds keys and values of all of them, and "
                         "k=%s,v=%s is one of each; use v=%s",
                         k->name, v->name, kept_codec_layers(form) > 1 ? k->name : "low50");
    if (kept_codec_has_basis(form) && kept_codec_has_nuq(form))
        return kept_fail(err, KEPT_ARGUMENT,
                         "k=%s,v=%s reads two trained files, of kinds 'basis' and 'nuq'; use v=%s",
                         k->name, v->name, k->nuq ? k->name : "rot4");
    if ((k->basis || k->nuq) && kept_strategy_moves_keys(s))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' moves keys to other positions, and keys stored as %s are made again "
                         "at their own; use the position original, or k=q8",
                         s->part[KEPT_AXIS_POSITION]->name, k->name);
    return kept_codec_layers(form) > 1 ? check_shared(s, k->name, err) : KEPT_OK;
}

kept_codecs kept_form_at(kept_codecs form, int l, int n_layers)
{
    const int first = (n_layers / 2 + 1) / 2 * 2; /* pairs are (even, odd) */
    if (kept_codec_get(form.k)->slerp && (l < first || l / 2 * 2 + 1 >= n_layers))
        return (kept_codecs){KEPT_F16, KEPT_F16};
    return form;
}

size_t kept_form_page_bytes(kept_codecs form, int l, int n_layers, int head_size)
{
    const int g = kept_codec_layers(form), left = n_layers - l / g * g;
    return kept_codec_page_bytes(form, head_size) / (size_t)(left < g ? left : g);
}
