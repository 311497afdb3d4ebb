//! One body, a test for each broker.

/// Runs a body, a function of a [`Broker`], as one test for each of the named brokers: `body::redis`, `body::rabbitmq`, ….
macro_rules! on_brokers {
    ($body:ident: $($broker:ident),+) => {
        mod $body {
            $($crate::on_brokers::on_brokers!(@test $body $broker);)+
        }
    };
    (@test $body:ident redis) => {
        $crate::on_brokers::on_brokers!(@test $body redis Redis);
    };
    (@test $body:ident rabbitmq) => {
        $crate::on_brokers::on_brokers!(@test $body rabbitmq RabbitMq);
    };
    (@test $body:ident rabbitmq_rpc) => {
        $crate::on_brokers::on_brokers!(@test $body rabbitmq_rpc RabbitMqRpc);
    };
    (@test $body:ident rabbitmq_without_results) => {
        $crate::on_brokers::on_brokers!(@test $body rabbitmq_without_results RabbitMqWithoutResults);
    };
    (@test $body:ident $name:ident $broker:ident) => {
        #[test]
        fn $name() {
            super::$body($crate::rig::Broker::$broker);
        }
    };
}
pub(crate) use on_brokers;
