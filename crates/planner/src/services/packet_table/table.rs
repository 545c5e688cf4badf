//! The table.

/// A line is `node from to:port/protocol ⇒ fate`. The protocol is TCP where none is given. Names are those of
/// [`ADDRESSES`](super::ADDRESSES); a source behind `@` arrives from outside of the node, `host` is the node itself. The fate is
/// `rejected`, `dropped`, `answered` (a ping), `direct` (not translated), or the backends, all of which are equally likely; `!` says
/// masqueraded, and `sticky` at the end that whoever comes again comes to the same one, also at the frontends behind that word.
pub(super) const TABLE: &str = "
# A pod to a ClusterIP: any of the backends, wherever they are; the source stays.
node1 client1  web:80            ⇒ web1:8080 web2:8080 web3:8080
node2 client2  web:80            ⇒ web1:8080 web2:8080 web3:8080
node3 client3  web:80            ⇒ web1:8080 web2:8080 web3:8080
node1 plain1   web:80            ⇒ web1:8080 web2:8080 web3:8080
node1 client1  web:443           ⇒ web1:8443 web2:8443 web3:8443
node1 client1  dns:53/udp        ⇒ dns1:5353 dns2:5353
node1 client1  dns:53            ⇒ dns1:5353 dns2:5353
node2 client2  dns:9153          ⇒ dns1:9153 dns2:9153
node1 client1  kubernetes:443    ⇒ control:6443!
node2 plain1   kubernetes:443    ⇒ control:6443
node1 client1  signal:3868/sctp  ⇒ web2:3868
node1 client1  hostnet:9100      ⇒ node1:9100 node2:9100
node3 client3  hostnet:9100      ⇒ node1:9100 node2:9100

# A backend to its own Service: masqueraded where it meets itself, and only there.
node1 web1     web:80            ⇒ web1:8080! web2:8080 web3:8080
node2 web2     web:80            ⇒ web1:8080 web2:8080! web3:8080
node3 web3     web:443           ⇒ web1:8443 web2:8443 web3:8443!
node1 dns1     dns:53/udp        ⇒ dns1:5353! dns2:5353
node2 dns2     dns:53            ⇒ dns1:5353 dns2:5353!
node1 alone1   alone:80          ⇒ alone1:80!
node1 client1  alone:80          ⇒ alone1:80
node2 web2     signal:3868/sctp  ⇒ web2:3868!

# The node's own connections: masqueraded, for its own address is not on the way back.
node1 host     web:80            ⇒ web1:8080! web2:8080! web3:8080!
node2 host     web:443           ⇒ web1:8443! web2:8443! web3:8443!
node1 host     dns:53/udp        ⇒ dns1:5353! dns2:5353!
node1 host     kubernetes:443    ⇒ control:6443!
node3 host     alone:80          ⇒ alone1:80!
node2 host     signal:3868/sctp  ⇒ web2:3868!
node1 host     hostnet:9100      ⇒ node1:9100! node2:9100!

# From outside through a node to a ClusterIP: masqueraded, so that the answers come back through it.
node1 @visitor web:80            ⇒ web1:8080! web2:8080! web3:8080!
node2 @visitor dns:53/udp        ⇒ dns1:5353! dns2:5353!
node3 @control web:80            ⇒ web1:8080! web2:8080! web3:8080!
node1 @node2   web:80            ⇒ web1:8080! web2:8080! web3:8080!
node1 @client2 web:80            ⇒ web1:8080 web2:8080 web3:8080

# NodePorts from outside: any backend, masqueraded.
node1 @visitor node1:30080       ⇒ shop1:8080! shop2:8080!
node2 @visitor node2:30080       ⇒ shop1:8080! shop2:8080!
node3 @visitor node3:30080       ⇒ shop1:8080! shop2:8080!
node3 @visitor node3:30443       ⇒ shop1:8443! shop2:8443!
node1 @visitor node1:30514/udp   ⇒ log2:514!
node2 @visitor node2:30514/udp   ⇒ log2:514!
node1 @control node1:30080       ⇒ shop1:8080! shop2:8080!
node1 @node2   node1:30080       ⇒ shop1:8080! shop2:8080!

# NodePorts from pods: those of this node keep their address, except where they meet themselves; those of others do not,
# for the backend's answers would not come back through this node.
node1 client1  node1:30080       ⇒ shop1:8080 shop2:8080
node1 shop1    node1:30080       ⇒ shop1:8080! shop2:8080
node2 shop2    node2:30443       ⇒ shop1:8443 shop2:8443!
node3 client3  node3:30514/udp   ⇒ log2:514
node1 @client2 node1:30080       ⇒ shop1:8080! shop2:8080!
node3 @client1 node3:30080       ⇒ shop1:8080! shop2:8080!
node2 @shop1   node2:30080       ⇒ shop1:8080! shop2:8080!

# NodePorts from the node itself; those of another node are that one's matter.
node1 host     node1:30080       ⇒ shop1:8080! shop2:8080!
node3 host     node3:30514/udp   ⇒ log2:514!
node1 host     node2:30080       ⇒ direct
node1 client1  node2:30080       ⇒ direct

# NodePorts at the node's loopback: any backend, masqueraded, for no answer would come to a loopback address.
node1 host     localhost:30080       ⇒ shop1:8080! shop2:8080!
node2 host     localhost:30443       ⇒ shop1:8443! shop2:8443!
node3 host     localhost:30080       ⇒ shop1:8080! shop2:8080!
node1 host     localhost:30514/udp   ⇒ log2:514!
node2 host     localhost:30514/udp   ⇒ log2:514!
node1 host     localhost:30910       ⇒ node1:9100! node2:9100!
node1 host     localhost:30076/sctp  ⇒ web1:3868! web3:3868!
node3 host     localhost:30099       ⇒ web1:8080!
node1 host     localhost:30040       ⇒ rejected
node2 host     localhost:30054       ⇒ web1:8080! shop1:8080! web3:8080!
node2 host     localhost:30058       ⇒ rejected
node1 host     localhost:30059       ⇒ web2:8080!
node3 host     localhost:30070       ⇒ web1:8080! web2:8080! web3:8080! sticky
node1 host     localhost:30072/udp   ⇒ web1:5353! web2:5353! web3:5353! sticky
node2 host     localhost:30075/udp   ⇒ dns1:5353! dns2:5353!
node1 host     localhost:80          ⇒ direct
node1 host     localhost:22          ⇒ direct
node1 host     localhost:30077       ⇒ direct

# A NodePort Service at its ClusterIP.
node1 client1  shop:80           ⇒ shop1:8080 shop2:8080
node2 shop2    shop:80           ⇒ shop1:8080 shop2:8080!
node3 client3  shop:443          ⇒ shop1:8443 shop2:8443
node1 client1  log:514/udp       ⇒ log2:514

# No endpoints, or none that is ready: refused at once, wherever it comes from.
node1 client1  empty:80          ⇒ rejected
node1 host     empty:80          ⇒ rejected
node1 @visitor empty:80          ⇒ rejected
node2 client2  empty:53/udp      ⇒ rejected
node2 host     empty:53/udp      ⇒ rejected
node1 @visitor node1:30040       ⇒ rejected
node1 client1  node1:30040       ⇒ rejected
node1 host     node1:30040       ⇒ rejected
node3 @visitor node3:30040       ⇒ rejected
node1 client1  empty:53/udp      ⇒ rejected
node1 client1  vacant:3868/sctp  ⇒ rejected
node2 host     vacant:3868/sctp  ⇒ rejected
node1 @visitor vacant:3868/sctp  ⇒ rejected
node2 @partner node2:30043/sctp  ⇒ rejected
node3 client3  node3:30043/sctp  ⇒ rejected
node2 @visitor node2:30042/udp   ⇒ rejected
node1 host     localhost:30042/udp   ⇒ rejected
node1 client1  vacant-ip:80      ⇒ rejected
node2 @visitor vacant-ip:80      ⇒ rejected
node3 host     vacant-ip:53/udp  ⇒ rejected
node2 @visitor vacant-ip:53/udp  ⇒ rejected
node1 client1  vacant-ip:3868/sctp   ⇒ rejected
node3 @visitor vacant-ip:3868/sctp   ⇒ rejected
node1 @visitor vacant-ext:80     ⇒ rejected
node2 client2  vacant-ext:53/udp ⇒ rejected
node2 @visitor vacant-ext:3868/sctp  ⇒ rejected
node1 client1  starting:80       ⇒ rejected
node2 host     starting:80       ⇒ rejected

# Readiness: not ready ones get nothing while others are ready; ending ones get what nobody else could; some count always.
node1 client1  mixed:80          ⇒ web1:8080 web3:8080
node1 client1  draining:80       ⇒ web2:8080
node2 web2     draining:80       ⇒ web2:8080!
node1 client1  replaced:80       ⇒ web3:8080
node1 client1  eager:80          ⇒ web1:8080 web2:8080

# Named ports: each slice has its own number for a name; an endpoint that two slices name is one.
node1 client1  named:80          ⇒ web1:8080 web2:9090
node1 client1  named:81          ⇒ web1:8081
node2 client2  twice:80          ⇒ web1:8080 web2:8080

# Ports and protocols that a ClusterIP does not have.
node1 client1  web:81            ⇒ rejected
node1 client1  web:80/udp        ⇒ rejected
node1 host     web:8080          ⇒ rejected
node1 @visitor web:22            ⇒ rejected
node2 client2  dns:54/udp        ⇒ rejected
node1 client1  shop:30080        ⇒ rejected
node1 client1  signal:3868       ⇒ rejected
node1 client1  web:80/sctp       ⇒ rejected
node3 host     signal:3869/sctp  ⇒ rejected
node2 @visitor web:80/sctp       ⇒ rejected
node2 client2  sixonly:80        ⇒ direct

# Ports of nodes that no Service has go to the node's own processes.
node1 client1  node1:22          ⇒ direct
node1 @visitor node1:22          ⇒ direct
node1 @visitor node1:30080/udp   ⇒ direct
node2 host     node2:10250       ⇒ direct

# Two Services with the same NodePort, or the same ClusterIP and port: the first by name has it.
node1 @visitor node1:30099       ⇒ web1:8080!
node1 client1  shared:80         ⇒ web1:8080
node1 client1  shared:81         ⇒ web2:8080

# Pod to pod, without a Service: nothing is touched.
node1 client1  web1:8080         ⇒ direct
node1 client1  web2:8080         ⇒ direct
node2 @client1 web2:8080         ⇒ direct
node1 plain1   web3:8080         ⇒ direct
node1 host     web2:8080         ⇒ direct
node1 @visitor web1:8080         ⇒ direct

# Pods out of the cluster: translated where the pool says natOutgoing, but not towards nodes or within the cluster.
node1 client1  visitor:443       ⇒ direct!
node1 client1  partner:443       ⇒ direct
node2 client2  visitor:53/udp    ⇒ direct!
node1 client1  control:6443      ⇒ direct!
node1 plain1   visitor:443       ⇒ direct
node1 client1  plain1:80         ⇒ direct
node1 client1  node2:22          ⇒ direct
node3 client3  node1:10250       ⇒ direct
node1 host     visitor:443       ⇒ direct
node1 @client2 visitor:443       ⇒ direct!
node1 client1  unused:80         ⇒ direct

# External addresses, as those of load balancers: any backend, masqueraded but for pods of this node.
node1 client1  ext-ip:8088       ⇒ web1:8080 web2:8080
node1 client1  ext-ip2:8088      ⇒ web1:8080 web2:8080
node1 web1     ext-ip:8088       ⇒ web1:8080! web2:8080
node2 client2  ext-ip:8088       ⇒ web1:8080 web2:8080
node3 client3  ext-ip:8088       ⇒ web1:8080 web2:8080
node1 host     ext-ip:8088       ⇒ web1:8080! web2:8080!
node3 host     ext-ip2:8088      ⇒ web1:8080! web2:8080!
node1 @visitor ext-ip:8088       ⇒ web1:8080! web2:8080!
node3 @visitor ext-ip2:8088      ⇒ web1:8080! web2:8080!
node2 @partner ext-ip:8088       ⇒ web1:8080! web2:8080!
node1 @client2 ext-ip:8088       ⇒ web1:8080! web2:8080!
node1 @node2   ext-ip:8088       ⇒ web1:8080! web2:8080!
node1 client1  ext-ip:3868/sctp  ⇒ web1:3868 web2:3868
node2 @visitor ext-ip:3868/sctp  ⇒ web1:3868! web2:3868!
node1 client1  ext-ip:8089       ⇒ direct!
node1 @visitor ext-ip:8089       ⇒ direct
node1 client1  ext-ip:8088/udp   ⇒ direct!
node1 client1  sticky-ip:53/udp  ⇒ web1:5353 web2:5353 web3:5353 sticky
node2 web2     sticky-ip:53/udp  ⇒ web1:5353 web2:5353! web3:5353 sticky
node3 @visitor sticky-ip:53/udp  ⇒ web1:5353! web2:5353! web3:5353! sticky
node2 host     sticky-ip:53/udp  ⇒ web1:5353! web2:5353! web3:5353! sticky
node1 client1  ext:8088          ⇒ web1:8080 web2:8080
node1 @visitor ext:8088          ⇒ web1:8080! web2:8080!
node2 @visitor node2:8088        ⇒ web1:8080! web2:8080!
node1 client1  node2:8088        ⇒ web1:8080 web2:8080
node2 host     node2:8088        ⇒ web1:8080! web2:8080!
node1 @visitor node1:8088        ⇒ direct
node1 client1  lb-ip:80          ⇒ web1:8080 web2:8080 web3:8080
node1 web1     lb-ip:80          ⇒ web1:8080! web2:8080 web3:8080
node2 client2  lb-ip:80          ⇒ web1:8080 web2:8080 web3:8080
node1 host     lb-ip:80          ⇒ web1:8080! web2:8080! web3:8080!
node1 @visitor lb-ip:80          ⇒ web1:8080! web2:8080! web3:8080!
node2 @visitor lb-ip:80          ⇒ web1:8080! web2:8080! web3:8080!
node3 @partner lb-ip:80          ⇒ web1:8080! web2:8080! web3:8080!
node3 @client1 lb-ip:80          ⇒ web1:8080! web2:8080! web3:8080!
node1 @visitor lb-ip:443         ⇒ direct
node1 client1  lb:80             ⇒ web1:8080 web2:8080 web3:8080
node2 @visitor node2:30051       ⇒ web1:8080! web2:8080! web3:8080!
node1 client1  resolver-ip:53/udp ⇒ dns1:5353 dns2:5353
node1 dns1     resolver-ip:53/udp ⇒ dns1:5353! dns2:5353
node1 client1  resolver-ip:53    ⇒ dns1:5353 dns2:5353
node2 @visitor resolver-ip:53/udp ⇒ dns1:5353! dns2:5353!
node3 @visitor resolver-ip:53    ⇒ dns1:5353! dns2:5353!
node3 host     resolver-ip:53/udp ⇒ dns1:5353! dns2:5353!
node3 @visitor node3:30075/udp   ⇒ dns1:5353! dns2:5353!
node1 @visitor node1:30076/sctp  ⇒ web1:3868! web3:3868!
node2 client2  node2:30076/sctp  ⇒ web1:3868 web3:3868
node3 host     node3:30076/sctp  ⇒ web1:3868! web3:3868!
node1 client1  mobile:3868/sctp  ⇒ web1:3868 web3:3868
node1 client1  mobile-ip:3868/sctp   ⇒ web1:3868 web3:3868
node3 web3     mobile-ip:3868/sctp   ⇒ web1:3868 web3:3868!
node2 @visitor mobile-ip:3868/sctp   ⇒ web1:3868! web3:3868!
node2 host     mobile-ip:3868/sctp   ⇒ web1:3868! web3:3868!

# A Service without a virtual address has no frontends, whatever else it names.
node1 client1  ext-ip:9999       ⇒ direct!
node1 @visitor ext-ip:9998       ⇒ direct

# A Service of both families: in each its endpoints of that family.
node1 client1  both:80           ⇒ web1:8080 web2:8080
node2 web2     both:80           ⇒ web1:8080 web2:8080!
node1 host     both:80           ⇒ web1:8080! web2:8080!
node3 @visitor node3:30086       ⇒ web1:8080! web2:8080!
node2 @visitor both-ip:80        ⇒ web1:8080! web2:8080!
node3 client3  both-ip:80        ⇒ web1:8080 web2:8080

# A load balancer that passes on to NodePorts itself (ipMode Proxy) is not led around.
node1 client1  lbproxy-ip:80     ⇒ direct!
node1 @visitor lbproxy-ip:80     ⇒ direct
node1 host     lbproxy-ip:80     ⇒ direct
node1 client1  lbproxy:80        ⇒ web1:8080 web2:8080
node1 @visitor node1:30052       ⇒ web1:8080! web2:8080!

# An address that lies in no IPAddressPool is not led around, unless another controller gave it.
node1 client1  strange-ip:80     ⇒ direct!
node1 @visitor strange-ip:80     ⇒ direct
node1 @visitor node1:30177       ⇒ web1:8080!
node2 client2  cloud-ip:80       ⇒ web1:8080
node1 @visitor cloud-ip:80       ⇒ web1:8080!

# Addresses of a load balancer for some sources only; its other frontends are for all.
node1 @visitor lbranges-ip:80    ⇒ web1:8080! web2:8080!
node2 @visitor lbranges-ip2:80   ⇒ web1:8080! web2:8080!
node1 client1  lbranges-ip:80    ⇒ web1:8080 web2:8080
node1 web1     lbranges-ip:80    ⇒ web1:8080! web2:8080
node2 @client1 lbranges-ip:80    ⇒ web1:8080! web2:8080!
node1 @partner lbranges-ip:80    ⇒ dropped
node2 @partner lbranges-ip2:80   ⇒ dropped
node2 client2  lbranges-ip:80    ⇒ dropped
node3 client3  lbranges-ip2:80   ⇒ dropped
node1 @client2 lbranges-ip:80    ⇒ dropped
node1 host     lbranges-ip:80    ⇒ dropped
node1 @node2   lbranges-ip:80    ⇒ dropped
node1 @partner lbranges-ip:81    ⇒ direct
node1 @partner node1:30053       ⇒ web1:8080! web2:8080!
node2 client2  lbranges:80       ⇒ web1:8080 web2:8080
node2 host     lbranges:80       ⇒ web1:8080! web2:8080!
node1 @visitor closed-ip:53/udp  ⇒ dns1:5353! web2:5353!
node1 client1  closed-ip:53/udp  ⇒ dns1:5353 web2:5353
node1 dns1     closed-ip:53/udp  ⇒ dns1:5353! web2:5353
node2 @partner closed-ip:53/udp  ⇒ dropped
node2 client2  closed-ip:53/udp  ⇒ dropped
node3 host     closed-ip:53/udp  ⇒ dropped
node3 @visitor closed-ip:53/udp  ⇒ dns1:5353! web2:5353!
node3 @partner closed-ip:53/udp  ⇒ dropped
node1 @partner node1:30084/udp   ⇒ dns1:5353! web2:5353!
node2 client2  closed:53/udp     ⇒ dns1:5353 web2:5353
node2 @visitor closed-ip:3868/sctp   ⇒ dns1:3868! web2:3868!
node1 client1  closed-ip:3868/sctp   ⇒ dns1:3868 web2:3868
node1 @partner closed-ip:3868/sctp   ⇒ dropped
node2 client2  closed-ip:3868/sctp   ⇒ dropped
node3 host     closed-ip:3868/sctp   ⇒ dropped
node3 @partner node3:30085/sctp  ⇒ dns1:3868! web2:3868!

# externalTrafficPolicy Local: who comes from outside comes to this node's endpoints and keeps its address.
node1 @visitor node1:30054       ⇒ web1:8080 shop1:8080
node1 @visitor local-ip:80       ⇒ web1:8080 shop1:8080
node1 @partner local-ip:80       ⇒ web1:8080 shop1:8080
node3 @visitor node3:30054       ⇒ web3:8080
node3 @visitor local-ip:80       ⇒ web3:8080
node3 @control local-ip:80       ⇒ web3:8080
node2 @visitor node2:30054       ⇒ dropped
node2 @visitor local-ip:80       ⇒ dropped
node2 @client1 local-ip:80       ⇒ dropped
node1 @client2 node1:30054       ⇒ web1:8080 shop1:8080
node1 @node2   node1:30054       ⇒ web1:8080 shop1:8080
node3 @web1    local-ip:80       ⇒ web3:8080
node1 @visitor node1:30081/udp   ⇒ dns1:5353 shop1:5353
node1 @visitor talk-ip:53/udp    ⇒ dns1:5353 shop1:5353
node3 @partner talk-ip:53/udp    ⇒ web3:5353
node2 @visitor node2:30081/udp   ⇒ dropped
node2 @visitor talk-ip:53/udp    ⇒ dropped
node1 @visitor node1:30082/sctp  ⇒ dns1:3868 shop1:3868
node3 @visitor talk-ip:3868/sctp ⇒ web3:3868
node2 @visitor talk-ip:3868/sctp ⇒ dropped
# The node and its pods come to all of them.
node2 client2  node2:30081/udp   ⇒ dns1:5353 shop1:5353 web3:5353
node1 dns1     talk-ip:53/udp    ⇒ dns1:5353! shop1:5353 web3:5353
node2 host     talk-ip:53/udp    ⇒ dns1:5353! shop1:5353! web3:5353!
node2 client2  node2:30082/sctp  ⇒ dns1:3868 shop1:3868 web3:3868
node1 client1  node1:30054       ⇒ web1:8080 shop1:8080 web3:8080
node1 client1  local-ip:80       ⇒ web1:8080 shop1:8080 web3:8080
node1 web1     local-ip:80       ⇒ web1:8080! shop1:8080 web3:8080
node1 shop1    node1:30054       ⇒ web1:8080 shop1:8080! web3:8080
node2 client2  local-ip:80       ⇒ web1:8080 shop1:8080 web3:8080
node2 client2  node2:30054       ⇒ web1:8080 shop1:8080 web3:8080
node3 web3     local-ip:80       ⇒ web1:8080 shop1:8080 web3:8080!
node1 host     local-ip:80       ⇒ web1:8080! shop1:8080! web3:8080!
node2 host     local-ip:80       ⇒ web1:8080! shop1:8080! web3:8080!
node2 host     node2:30054       ⇒ web1:8080! shop1:8080! web3:8080!
node2 client2  local:80          ⇒ web1:8080 shop1:8080 web3:8080
node2 @visitor local:80          ⇒ web1:8080! shop1:8080! web3:8080!
# Where nobody serves it at all it is refused.
node1 @visitor extnone-ip:80     ⇒ rejected
node2 @visitor extnone-ip:80     ⇒ rejected
node1 @visitor node1:30058       ⇒ rejected
node3 client3  extnone-ip:80     ⇒ rejected
node2 host     node2:30058       ⇒ rejected
node1 client1  extnone:80        ⇒ rejected
# An endpoint that ends serves where its node has no other.
node1 @visitor localterm-ip:80   ⇒ web1:8080
node1 @visitor node1:30059       ⇒ web1:8080
node2 @visitor localterm-ip:80   ⇒ web2:8080
node3 @visitor localterm-ip:80   ⇒ dropped
node3 @visitor node3:30059       ⇒ dropped
node1 client1  localterm-ip:80   ⇒ web2:8080
node1 web1     node1:30059       ⇒ web2:8080
node3 client3  node3:30059       ⇒ web2:8080
node1 host     localterm-ip:80   ⇒ web2:8080!
node1 client1  localterm:80      ⇒ web2:8080

# internalTrafficPolicy Local: a ClusterIP comes to this node's endpoints, from wherever.
node1 client1  inlocal:80        ⇒ web1:8080
node1 web1     inlocal:80        ⇒ web1:8080!
node2 client2  inlocal:80        ⇒ web2:8080
node3 client3  inlocal:80        ⇒ dropped
node3 host     inlocal:80        ⇒ dropped
node3 @visitor inlocal:80        ⇒ dropped
node1 host     inlocal:80        ⇒ web1:8080!
node1 @visitor inlocal:80        ⇒ web1:8080!
node2 @control inlocal:80        ⇒ web2:8080!
node1 @client2 inlocal:80        ⇒ web1:8080
node1 @visitor node1:30055       ⇒ web1:8080! web2:8080!
node3 client3  node3:30055       ⇒ web1:8080 web2:8080
node3 @visitor node3:30055       ⇒ web1:8080! web2:8080!
node1 client1  innone:80         ⇒ rejected
node3 client3  innone:80         ⇒ rejected
node2 host     innone:80         ⇒ rejected
node1 client1  interm:80         ⇒ web1:8080
node1 host     interm:80         ⇒ web1:8080!
node2 client2  interm:80         ⇒ web2:8080
node3 client3  interm:80         ⇒ dropped
node1 client1  talk:53/udp       ⇒ dns1:5353 shop1:5353
node1 dns1     talk:53/udp       ⇒ dns1:5353! shop1:5353
node2 client2  talk:53/udp       ⇒ dropped
node2 host     talk:53/udp       ⇒ dropped
node2 @visitor talk:53/udp       ⇒ dropped
node3 @visitor talk:53/udp       ⇒ web3:5353!
node3 client3  talk:3868/sctp    ⇒ web3:3868
node2 client2  talk:3868/sctp    ⇒ dropped
node1 @client2 talk:3868/sctp    ⇒ dns1:3868 shop1:3868

# Hints: endpoints for the node or its zone, where every one has them and one is for here; else any.
node1 client1  zonal:80          ⇒ web1:8080
node1 host     zonal:80          ⇒ web1:8080!
node2 client2  zonal:80          ⇒ web2:8080 web3:8080
node3 client3  zonal:80          ⇒ web2:8080 web3:8080
node3 web3     zonal:80          ⇒ web2:8080 web3:8080!
node2 @visitor zonal:80          ⇒ web2:8080! web3:8080!
node1 client1  halfzonal:80      ⇒ web1:8080 web2:8080
node2 client2  halfzonal:80      ⇒ web1:8080 web2:8080
node1 client1  elsezone:80       ⇒ web1:8080 web2:8080
node3 client3  elsezone:80       ⇒ web1:8080 web2:8080
node1 client1  samenode:80       ⇒ web1:8080
node2 client2  samenode:80       ⇒ web2:8080
node2 host     samenode:80       ⇒ web2:8080!
node3 client3  samenode:80       ⇒ web1:8080 web2:8080
node1 client1  nodezone:80       ⇒ web1:8080
node2 client2  nodezone:80       ⇒ web2:8080
node3 client3  nodezone:80       ⇒ web2:8080 shop2:8080

# sessionAffinity: a client stays with the backend that it came to first.
node1 client1  sticky:80         ⇒ web1:8080 web2:8080 web3:8080 sticky node1:30070 sticky-ip:80
node1 web1     sticky:80         ⇒ web1:8080! web2:8080 web3:8080 sticky
node2 client2  sticky:80         ⇒ web1:8080 web2:8080 web3:8080 sticky
node1 host     sticky:80         ⇒ web1:8080! web2:8080! web3:8080! sticky
node3 @visitor sticky:80         ⇒ web1:8080! web2:8080! web3:8080! sticky
node1 client1  sticky:53/udp     ⇒ web1:5353 web2:5353 web3:5353 sticky
node3 host     sticky:53/udp     ⇒ web1:5353! web2:5353! web3:5353! sticky
node1 @visitor node1:30070       ⇒ web1:8080! web2:8080! web3:8080! sticky
node2 @partner node2:30070       ⇒ web1:8080! web2:8080! web3:8080! sticky sticky-ip:80 sticky:80
node2 client2  node2:30070       ⇒ web1:8080 web2:8080 web3:8080 sticky
node3 host     node3:30070       ⇒ web1:8080! web2:8080! web3:8080! sticky
node2 @visitor node2:30072/udp   ⇒ web1:5353! web2:5353! web3:5353! sticky
node1 @visitor sticky-ip:80      ⇒ web1:8080! web2:8080! web3:8080! sticky
node3 client3  sticky-ip:80      ⇒ web1:8080 web2:8080 web3:8080 sticky
node3 client3  sticky:53/udp     ⇒ web1:5353 web2:5353 web3:5353 sticky node3:30072 sticky-ip:53
node1 client1  sticky:3868/sctp  ⇒ web1:3868 web2:3868 web3:3868 sticky
node2 client2  sticky:3868/sctp  ⇒ web1:3868 web2:3868 web3:3868 sticky node2:30073 sticky-ip:3868
node2 @visitor node2:30073/sctp  ⇒ web1:3868! web2:3868! web3:3868! sticky sticky:3868
node3 host     sticky:3868/sctp  ⇒ web1:3868! web2:3868! web3:3868! sticky
node1 @visitor node1:30071       ⇒ web1:8080 shop1:8080 sticky
node1 @partner node1:30071       ⇒ web1:8080 shop1:8080 sticky
node1 client1  node1:30071       ⇒ web1:8080 shop1:8080 web3:8080 sticky
node3 @visitor node3:30071       ⇒ web3:8080 sticky
node2 @visitor node2:30071       ⇒ dropped
node2 client2  stickylocal:80    ⇒ web1:8080 shop1:8080 web3:8080 sticky

# For some sources only, externalTrafficPolicy Local and sessionAffinity in one: the sources say who comes in, at the load balancer's address
# alone; the policy where to; and there it stays.
node1 @visitor lbranges-ip:8090  ⇒ web1:8080 shop1:8080 sticky
node3 @visitor lbranges-ip:8090  ⇒ web3:8080 sticky
node2 @visitor lbranges-ip:8090  ⇒ dropped
node1 @partner lbranges-ip:8090  ⇒ dropped
node3 @partner lbranges-ip:8090  ⇒ dropped
node3 @client1 lbranges-ip:8090  ⇒ web3:8080 sticky
node3 @client2 lbranges-ip:8090  ⇒ dropped
node1 client1  lbranges-ip:8090  ⇒ web1:8080 shop1:8080 web3:8080 sticky
node1 web1     lbranges-ip:8090  ⇒ web1:8080! shop1:8080 web3:8080 sticky
node2 client2  lbranges-ip:8090  ⇒ dropped
node3 host     lbranges-ip:8090  ⇒ dropped
node1 @partner node1:30087       ⇒ web1:8080 shop1:8080 sticky
node3 @partner node3:30087       ⇒ web3:8080 sticky
node2 @partner node2:30087       ⇒ dropped
node2 client2  guard:8090        ⇒ web1:8080 shop1:8080 web3:8080 sticky

# What another program proxies is nothing to this one; slices that are not to be proxied are no endpoints.
node1 client1  others:80         ⇒ direct
node1 host     others:80         ⇒ direct
node1 @visitor node1:30077       ⇒ direct
node1 client1  unlisted:80       ⇒ rejected
node1 client1  thief:80          ⇒ shop1:8080
node2 @visitor thief:80          ⇒ shop1:8080!

# A ClusterIP answers pings, whoever asks, and whether it has endpoints or not.
node1 client1  web/ping          ⇒ answered
node2 web2     web/ping          ⇒ answered
node3 client3  kubernetes/ping   ⇒ answered
node1 host     web/ping          ⇒ answered
node3 host     dns/ping          ⇒ answered
node1 @visitor web/ping          ⇒ answered
node2 @node1   shop/ping         ⇒ answered
node1 @client2 web/ping          ⇒ answered
node1 client1  empty/ping        ⇒ answered
node1 plain1   inlocal/ping      ⇒ answered
node1 client1  web2/ping         ⇒ answered
node1 @visitor node1/ping        ⇒ answered
# An address of a load balancer is no node's, and is left to whoever has it.
node1 client1  lb-ip/ping        ⇒ direct!
node2 @visitor lb-ip/ping        ⇒ direct
node3 host     lb-ip/ping        ⇒ direct
";
