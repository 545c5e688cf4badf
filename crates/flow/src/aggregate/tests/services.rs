//! Flows that asked a Service.

use super::*;

#[test]
fn a_service_that_was_asked_is_told_beside_the_backend_that_answers() {
    struct Translated;
    impl Translations for Translated {
        fn backend(&mut self, key: &Key) -> Option<SocketAddr> {
            (key.destination == "10.96.0.7:80".parse().unwrap()).then(|| "10.0.0.2:80".parse().unwrap())
        }
    }
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    let asked = ("10.96.0.7:80".parse().unwrap(), Transport::TCP);
    reader.names.set_services([(asked, podnet_model::ServiceKey::new("shop", "cart"))].into());
    kernel.packet(0, false, false);
    let mut entries: Vec<Entry> = kernel.map.values().copied().collect();
    // At the source's interface it is addressed to the Service; the destination's is read first.
    entries[0].key.remote = "10.96.0.7".parse().unwrap();
    let mut scene = Scene { now: at(5), names: &reader.names, translations: &mut Translated };
    for entry in entries.iter().rev() {
        assert_eq!(reader.aggregator.observe(entry, &mut scene, &mut reader.told), Fate::Stays);
    }
    let [record] = &reader.told[..] else { panic!("{:?}", reader.told) };
    assert_eq!((record.class, record.reporter), (Class::PodService, Reporter::Both));
    assert_eq!(record.destination.pod.as_ref().unwrap().name.as_ref(), "b");
    let asked = record.service.as_ref().unwrap();
    assert_eq!((asked.service.to_string().as_str(), asked.ip.to_string().as_str()), ("shop/cart", "10.96.0.7"));
}

#[test]
fn a_service_that_was_asked_at_the_socket_is_told_though_packets_show_the_backend_alone() {
    let (mut kernel, mut reader) = (Kernel { now: 1, ..Kernel::default() }, Reader::new());
    let asked: SocketAddr = "10.96.0.7:80".parse().unwrap();
    reader.names.set_services([((asked, Transport::TCP), podnet_model::ServiceKey::new("shop", "cart"))].into());
    kernel.packet(0, false, false);
    let mut entries: Vec<Entry> = kernel.map.values().copied().collect();
    entries.iter_mut().filter(|entry| entry.pod_began).for_each(|entry| entry.asked = Some(asked));
    let mut scene = Scene { now: at(5), names: &reader.names, translations: &mut () };
    // The destination's is read first.
    for entry in entries.iter().rev() {
        assert_eq!(reader.aggregator.observe(entry, &mut scene, &mut reader.told), Fate::Stays);
    }
    let [record] = &reader.told[..] else { panic!("{:?}", reader.told) };
    assert_eq!((record.class, record.reporter), (Class::PodService, Reporter::Both));
    assert_eq!(record.destination.at(), "10.0.0.2:80".parse().unwrap());
    let told = record.service.as_ref().unwrap();
    assert_eq!((told.service.to_string().as_str(), told.ip, told.port), ("shop/cart", asked.ip(), 80));
}
