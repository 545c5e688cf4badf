//! What links behind the `cache` answer at once lives for no longer than that lets it.
//!
//! What takes time goes through the cache itself. Names of the cluster are not looked at where their one time to live is short enough.

use super::{Block, place_of};
use crate::message::Request;

impl Block {
    /// Looks which links may answer at once with what lives for longer than the cache lets it.
    pub(super) fn find_outlasting(&self) -> Vec<bool> {
        let Some(cache) = &self.cache else { return Vec::new() };
        let before = place_of("cache");
        let links = self.links.iter().zip(&self.places);
        links.map(|(link, place)| *place > before && link.ttl().is_none_or(|ttl| !cache.lets(ttl))).collect()
    }

    /// Bounds what a link answered at once.
    pub(in crate::server) fn bound(&self, link: usize, request: &Request<'_>, response: &mut [u8]) {
        if self.outlasting.get(link) == Some(&true)
            && let Some(cache) = &self.cache
            && cache.options().covers(&request.name)
        {
            cache.bound_response(response, request.question.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::fixture::Rig;

    #[test]
    fn names_of_the_cluster_are_looked_at_only_where_they_live_too_long() {
        for (cache, ttl, looked_at) in [
            ("cache", 5, [false, true, false]),
            ("cache 30", 30, [false, true, false]),
            ("cache 10", 30, [false, true, true]),
            ("cache", 3600, [false, true, true]),
            ("cache {\n disable success\n success 100 10\n}", 30, [false, true, true]),
        ] {
            let hosts = "hosts /nowhere {\n 192.0.2.1 a.test\n}";
            let kubernetes = format!("kubernetes cluster.local {{\n ttl {ttl}\n}}");
            let rig = Rig::new(&format!(". {{\n {cache}\n {hosts}\n {kubernetes}\n}}\n"));
            assert_eq!(rig.server.blocks[0].outlasting, looked_at, "{cache}, {ttl}");
        }
        let rig = Rig::new(". {\n whoami\n}\n");
        assert!(rig.server.blocks[0].outlasting.is_empty());
    }
}
