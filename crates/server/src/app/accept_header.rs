//! Choosing between representations by `Accept` (RFC 9110 §12.5.1).

/// The offered media type that `Accept` gives the most weight to: the first of several. Without the
/// field everything is accepted alike.
pub(crate) fn best<'a, 'o>(
    accept: impl Iterator<Item = &'a [u8]> + Clone,
    offered: &[&'o str],
) -> Option<&'o str> {
    let mut found: Option<(&'o str, u16)> = None;
    for offer in offered {
        let weight = weight_of(accept.clone(), offer);
        if weight > found.map_or(0, |(_, weight)| weight) {
            found = Some((offer, weight));
        }
    }
    found.map(|(offer, _)| offer)
}

/// In thousandths; the most specific range that matches counts.
fn weight_of<'a>(accept: impl Iterator<Item = &'a [u8]>, offer: &str) -> u16 {
    let mut is_there = false;
    let mut found = (0, 0);
    for line in accept {
        is_there = true;
        let line = std::str::from_utf8(line).unwrap_or_default();
        for range in line.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some(specificity) = parts.next().and_then(|range| matches(range, offer)) else {
                continue;
            };
            let weight = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(Some(1000), |(_, value)| thousandths(value.trim()));
            if let Some(weight) = weight
                && specificity > found.0
            {
                found = (specificity, weight);
            }
        }
    }
    if is_there { found.1 } else { 1000 }
}

/// How specific a range is that matches: 1 to 3.
fn matches(range: &str, offer: &str) -> Option<u8> {
    let (kind, subtype) = range.split_once('/')?;
    let (offered_kind, offered_subtype) = offer.split_once('/')?;
    match (kind, subtype) {
        ("*", "*") => Some(1),
        (_, "*") if kind.eq_ignore_ascii_case(offered_kind) => Some(2),
        _ if kind.eq_ignore_ascii_case(offered_kind)
            && subtype.eq_ignore_ascii_case(offered_subtype) =>
        {
            Some(3)
        }
        _ => None,
    }
}

fn thousandths(value: &str) -> Option<u16> {
    let weight: f32 = value.parse().ok()?;
    (0.0..=1.0)
        .contains(&weight)
        .then_some((weight * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_offer_wins_and_of_equals_the_first() {
        let offered = ["text/html", "application/json", "text/plain"];
        for (accept, chosen) in [
            (None, Some("text/html")),
            (Some("*/*"), Some("text/html")),
            (Some("application/json"), Some("application/json")),
            (
                Some("text/*;q=0.5, application/*"),
                Some("application/json"),
            ),
            (Some("text/*, text/html;q=0"), Some("text/plain")),
            (
                Some("TEXT/HTML;q=0.1, text/plain;q=0.2"),
                Some("text/plain"),
            ),
            (Some("image/png"), None),
            (Some("*/*;q=0"), None),
            (Some("nonsense, , ;q=1, text/plain"), Some("text/plain")),
            (Some("text/html;q=nonsense, text/plain"), Some("text/plain")),
        ] {
            let lines = accept.into_iter().map(str::as_bytes);
            assert_eq!(best(lines, &offered), chosen, "{accept:?}");
        }
    }
}
