// Counts what passes pods' interfaces. What the fast path leads to a pod does not pass these: it counts that itself (`FLOWS` in fastpath.c).

// Pods' packets have their sockets here; what comes to a pod has none.
#define ASKED
#include "flows.h"

// For how long what a first fragment showed holds: so long it is waited for the rest (RFC 8200, section 4.5). In ns.
#define FRAGMENTS_WAIT 60000000000

// What whoever puts its fragments together knows a datagram by.
struct datagram {
    __u32 device;
    __be32 local[4];
    __be32 remote[4];
    __u32 id;
    __u32 into;
};

// What the first one showed, and when that was: ns of CLOCK_MONOTONIC, as of the last tick.
struct shown {
    __u64 at;
    __be16 local_port;
    __be16 remote_port;
    __u32 protocol;
};

// The least recently used goes where there are more. Later fragments follow the first one at once, as a rule.
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct datagram);
    __type(value, struct shown);
} flow_fragments SEC(".maps");

// What the first fragment of a datagram shows holds for later ones. One that came before it, or long after it, or whose first one is forgotten keeps
// ports 0. The protocol is the first one's as well: of IPv6 later ones may name options that are before it.
static __attribute__((noinline)) int share_ports(struct seen *seen, __u32 place, __u32 id)
{
    struct datagram datagram;
    __builtin_memset(&datagram, 0, sizeof(datagram));
    datagram.device = seen->key.device;
    __builtin_memcpy(datagram.local, seen->key.local, 16);
    __builtin_memcpy(datagram.remote, seen->key.remote, 16);
    datagram.id = id;
    datagram.into = seen->into;
    __u64 now = bpf_ktime_get_coarse_ns();
    if (place == FIRST_FRAGMENT) {
        struct shown shows = {
            .at = now,
            .local_port = seen->key.local_port,
            .remote_port = seen->key.remote_port,
            .protocol = seen->key.protocol,
        };
        bpf_map_update_elem(&flow_fragments, &datagram, &shows, BPF_ANY);
        return 0;
    }
    struct shown *shown = bpf_map_lookup_elem(&flow_fragments, &datagram);
    if (shown && now - shown->at < FRAGMENTS_WAIT) {
        seen->key.local_port = shown->local_port;
        seen->key.remote_port = shown->remote_port;
        seen->key.protocol = shown->protocol;
        seen->later = 1;
    }
    return 0;
}

// Counts a packet of the pod behind the device: 0, one that it sent; 1, one that comes to it. Where it is an error of ICMP, where that begins in it;
// else 0.
static __attribute__((noinline)) int count_flow(struct __sk_buff *skb, __u32 into)
{
    struct seen seen;
    __builtin_memset(&seen, 0, sizeof(seen));
    seen.key.device = skb->ifindex;
    seen.into = into & 1;
    seen.packets = 1;
    seen.bytes = skb->len - ETH_HLEN;
    struct fragment fragment = {0};
    int counts = skb->protocol == bpf_htons(ETH_P_IP)     ? see_v4(skb, &seen, ETH_HLEN, &fragment)
                 : skb->protocol == bpf_htons(ETH_P_IPV6) ? see_v6(skb, &seen, ETH_HLEN, &fragment)
                                                          : 0;
    if (!counts || !seen.wanted)
        return seen.error;
    if (fragment.place)
        share_ports(&seen, fragment.place, fragment.id);
    tally(skb, &seen);
    return seen.error;
}

// Notes an error of ICMP, which begins at `at`, in the entry of the flow that it quotes a packet of: that went the other way. Only what who began the
// flow is told of matters: answers that come too late are refused every day.
static __attribute__((noinline)) int note_error(struct __sk_buff *skb, __u32 at, __u32 into)
{
    struct seen quoted;
    __builtin_memset(&quoted, 0, sizeof(quoted));
    quoted.key.device = skb->ifindex;
    quoted.into = !(into & 1);
    __u32 is_v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
    __u8 head[2];
    __be32 sender[4];
    if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
        return 0;
    // Behind eight bytes of its own it quotes the packet from the IP header on (RFC 792; RFC 4443, section 3).
    if (is_v6) {
        if (!see_v6(skb, &quoted, at + 8, 0) || bpf_skb_load_bytes(skb, ETH_HLEN + 8, sender, 16))
            return 0;
    } else {
        __be32 v4;
        if (!see_v4(skb, &quoted, at + 8, 0) || bpf_skb_load_bytes(skb, ETH_HLEN + 12, &v4, 4))
            return 0;
        mapped(sender, v4);
    }
    struct counted *counted = bpf_map_lookup_elem(&flow_entries, &quoted.key);
    if (!counted || quoted.into != counted->remote_began)
        return 0;
    __be32 *whom = quoted.into ? quoted.key.local : quoted.key.remote;
    __u8 by = ERROR_ON_THE_WAY;
    if (sender[0] == whom[0] && sender[1] == whom[1] && sender[2] == whom[2] && sender[3] == whom[3])
        by = ERROR_BY_DESTINATION;
    if (is_v6 ? head[0] == 2 : head[0] == 3 && head[1] == 4)
        by |= ERROR_TOO_BIG;
    counted->error_type = head[0];
    counted->error_code = head[1];
    counted->error_by = by;
    return 0;
}

static __always_inline int see(struct __sk_buff *skb, __u32 into)
{
    __u32 error = count_flow(skb, into);
    // The fast path leads none to a pod.
    if (error)
        note_error(skb, error, into);
    return TC_ACT_UNSPEC;
}

// At the ingress of the node's end: from the pod.
SEC("classifier") int podnet_seen_out(struct __sk_buff *skb)
{
    return see(skb, 0);
}

// At its egress: to the pod.
SEC("classifier") int podnet_seen_in(struct __sk_buff *skb)
{
    return see(skb, 1);
}
