//! From the layers of a result to the config that lists them: what only a finished build can fill in.

use cache::DiffId;
use frontend::ImageConfig;

use crate::clock;

/// Fills in what only the result tells: the layers, and when each step's layer was made. With an epoch that is the time
/// of all; otherwise a rebuild from the cache has the same times, and so the same ID. Spec: dockerfile.md §13, §14.
pub(super) fn finish_config(
    mut config: ImageConfig,
    n_base_history: usize,
    layers: &[DiffId],
    epoch: Option<i64>,
    made_unix: impl Fn(&DiffId) -> Option<i64>,
) -> ImageConfig {
    let (inherited, own) = config.history.split_at_mut(n_base_history);
    let n_own_layers = own.iter().filter(|entry| !entry.empty_layer).count();
    let mut own_layers = layers[layers.len().saturating_sub(n_own_layers)..].iter();
    let mut time = inherited.iter().rev().find_map(|entry| entry.created.clone());
    for entry in own {
        if !entry.empty_layer {
            let made = own_layers.next().and_then(&made_unix);
            time = made.map(clock::rfc3339).or(time);
        }
        entry.created = match epoch {
            Some(epoch) => Some(clock::rfc3339(epoch)),
            None => Some(time.clone().unwrap_or_else(|| clock::rfc3339(0))),
        };
    }
    config.created = config
        .history
        .iter()
        .rev()
        .find_map(|entry| entry.created.clone());
    config.rootfs.diff_ids = layers.to_vec();
    config
}

#[cfg(test)]
mod tests {
    use frontend::config::History;

    use super::*;

    #[test]
    fn times_are_filled_in_for_what_this_build_added_only() {
        let entry = |text: &str| History {
            created_by: text.to_owned(),
            empty_layer: true,
            ..History::default()
        };
        let config = ImageConfig {
            history: vec![entry("a base without times"), entry("ENV a=b")],
            ..ImageConfig::default()
        };
        let created = |epoch| {
            let config = finish_config(config.clone(), 1, &[], epoch, |_| None);
            let times: Vec<_> = config.history.into_iter().map(|entry| entry.created).collect();
            (times, config.created)
        };
        let at = |text: &str| Some(text.to_owned());
        let five = at("1970-01-01T00:00:05Z");
        assert_eq!(created(Some(5)), (vec![None, five.clone()], five));
        let zero = at("1970-01-01T00:00:00Z");
        assert_eq!(created(None), (vec![None, zero.clone()], zero));
    }
}
